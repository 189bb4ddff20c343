"""Examples: takes in rooms, in talk and beside it, with noise and music, at various levels, speeds and pitches."""

from functools import cache
from pathlib import Path

import numpy as np

from kwsd.audio import FloatArray
from kwsd.learn import augment
from kwsd.learn.graft import N_SPANS, SPAN_STEPS, STEP_FRAMES
from kwsd.learn.takes import RATE_HZ, Take
from kwsd.learn.trunk import Trunk, spans_of, windows_of
from kwsd.sources.recording import read_recording

_TALK = Path(__file__).with_name("talk.ogg")
"""A minute of talk by speech synthesisers, as in demo/talk.wav: speech that may be shipped."""

_LEAD_SECONDS, _TAIL_SECONDS = 1.0, 0.6
_SPEEDS = (0.88, 1.14)
_CLEAN_SHARE = 0.2  # of the versions: as they are recorded
_TALK_SHARE, _TELEVISION_SHARE, _MUSIC_SHARE = 0.5, 0.2, 0.05  # of the others; the rest are in noise
_SNR_DB = (3.0, 30.0)  # of noise and music; of noise beside talk, `_SOFT_DB`
_SOFT_DB = (20.0, 40.0)
_TALK_DB = (-6.0, 6.0)  # of talk around the word, relative to it
_TELEVISION_DB = (5.0, 25.0)  # softer than the word
_GAP_SECONDS = (0.03, 0.3)  # between talk and the word
_LEVEL_DB = (-38.0, -12.0)
_SAID_SECONDS = (0.02, 0.34)  # after the word's end: windows that end here count as the word
_HALF_SAID = (0.25, 0.6)  # shares of a word that are not yet the word


def positives(take: Take, n_versions: int, trunk: Trunk, random: np.random.Generator) -> FloatArray:
    """Windows that end just after the word. Shape: -> (n, N_SPANS * n_channels)."""
    n_clean = round(_CLEAN_SHARE * n_versions)
    clean = [_as_recorded(take, trunk, random) for _ in range(n_clean)]
    return np.concatenate([*clean, *(_mixed(take.word, trunk, random) for _ in range(n_versions - n_clean))])


def beginnings(take: Take, n_versions: int, trunk: Trunk, random: np.random.Generator) -> FloatArray:
    """Windows that end after a part of the word, which must not be taken for it. Shape: as `positives`."""
    ends = [round(random.uniform(*_HALF_SAID) * len(take.word)) for _ in range(n_versions)]
    return np.concatenate([_mixed(take.word[:end], trunk, random) for end in ends])


def unchanged(take: Take, trunk: Trunk) -> FloatArray:
    """All windows of the unchanged recording, between silence, to measure recognition. Shape: as `positives`."""
    samples = np.pad(take.samples, (round(_LEAD_SECONDS * RATE_HZ), round(_TAIL_SECONDS * RATE_HZ)))
    return windows_of(spans_of(trunk.steps(samples)))


def _as_recorded(take: Take, trunk: Trunk, random: np.random.Generator) -> FloatArray:
    """The windows after the word in its own recording, faster or slower, louder or softer."""
    factor = random.uniform(*_SPEEDS)
    lead = round(_LEAD_SECONDS * RATE_HZ)
    samples = np.pad(augment.change_speed(take.samples, factor), (lead, round(_TAIL_SECONDS * RATE_HZ)))
    level = 10 ** (random.uniform(*_LEVEL_DB) / 20) / max(augment.rms(take.word), 1e-6)
    return _after(lead + round(take.end / factor), augment.limit(samples * np.float32(level)), trunk)


def _mixed(word: FloatArray, trunk: Trunk, random: np.random.Generator) -> FloatArray:
    """The windows after a word that is faster or slower, in a room, with other sounds."""
    word = augment.change_speed(word, random.uniform(*_SPEEDS))
    if random.random() < 0.5:
        word = augment.reverberate(np.pad(word, (0, RATE_HZ // 10)), RATE_HZ, random)[: len(word)]
    word = word / np.float32(max(augment.rms(word), 1e-6))
    lead = round(random.uniform(0.8, 1.0) * _LEAD_SECONDS * RATE_HZ)
    end = lead + len(word)
    samples = np.pad(word, (lead, round(_TAIL_SECONDS * RATE_HZ)))
    samples += _surroundings(len(samples), lead, end, random)
    level = np.float32(10 ** (random.uniform(*_LEVEL_DB) / 20))
    return _after(end, augment.limit(samples * level), trunk)


def _after(word_end: int, samples: FloatArray, trunk: Trunk) -> FloatArray:
    """The windows that end in the third of a second after a word."""
    steps = trunk.steps(samples)
    step_samples, n_steps = STEP_FRAMES * trunk.frontend.hop_samples, N_SPANS * SPAN_STEPS
    first, last = (round((word_end + seconds * RATE_HZ) / step_samples) for seconds in _SAID_SECONDS)
    ends = range(max(first, n_steps), min(last, len(steps)) + 1, SPAN_STEPS)
    return np.concatenate([windows_of(spans_of(steps[end - n_steps : end])) for end in ends])


def _surroundings(n_samples: int, begin: int, end: int, random: np.random.Generator) -> FloatArray:
    """What else is heard around a word, whose root mean square is 1, from `begin` to `end`."""

    def at(level_db: float, samples: FloatArray) -> FloatArray:
        return samples * np.float32(10 ** (level_db / 20))

    noise, kind = augment.coloured_noise(n_samples, random.uniform(0, 2), random), random.random()
    if kind < _TALK_SHARE:
        talk = at(random.uniform(*_TALK_DB), _talk(n_samples, random))
        gap = round(random.uniform(*_GAP_SECONDS) * RATE_HZ)
        talk[max(0, begin - gap) : end + gap] = 0
        return talk + at(-random.uniform(*_SOFT_DB), noise)
    if kind < _TALK_SHARE + _TELEVISION_SHARE:
        television = at(-random.uniform(*_TELEVISION_DB), _talk(n_samples, random))
        return television + at(-random.uniform(*_SOFT_DB), noise)
    if kind < _TALK_SHARE + _TELEVISION_SHARE + _MUSIC_SHARE:
        noise = augment.music(n_samples, RATE_HZ, random)
    return at(-random.uniform(*_SNR_DB), noise)


def _talk(n_samples: int, random: np.random.Generator) -> FloatArray:
    """A piece of talk by a voice that is faster or slower, with a root mean square of 1."""
    factor = random.uniform(*_SPEEDS)
    n_read = round(n_samples * factor) + 2
    talk = _whole_talk()
    at = int(random.integers(len(talk) - n_read))
    piece = augment.change_speed(talk[at : at + n_read], factor)[:n_samples]
    return piece / np.float32(max(augment.rms(piece), 1e-3))


@cache
def _whole_talk() -> FloatArray:
    return read_recording(_TALK)[0]
