"""Scenes: continuous audio as a microphone records it, with the place of every utterance in it.

Law: a scene depends only on the recordings, a style and a random generator.

Training cuts its windows out of scenes, and the evaluation's streams are scenes of speakers that
training does not use. So both contain what streams contain: words in quick succession, parts of
words, speech, and changing noise.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kwsd.audio import FloatArray, dbfs
from kwsd.learn import augment
from train.recordings.corpus import RATE_HZ, UNKNOWN
from train.recordings.material import Material

_KINDS = ("keyword", "other", "cut", "double", "speech")  # of utterances: fields of Style
_FADE_SAMPLES = RATE_HZ // 100
_HISS_DBFS = -85.0  # the hiss of a quiet converter
_SILENT = 1e-3  # root mean square: softer parts of a noise recording come from its codec
_MARGIN_SECONDS = 0.06  # a clip keeps at least this much around its word


@dataclass(frozen=True, slots=True)
class Style:
    """The sound of a scene, in seconds, decibels and shares. Pairs are ranges of uniform random values.

    Attributes:
        keyword, other, cut, double, speech: relative shares of the utterances: a keyword, another
            word, a keyword or word with a part missing, parts of two words, and some seconds of
            keyword-free speech.
        close: share of the pauses between them that are short; the others are long.
        short_pause, long_pause, speech_seconds: ranges of lengths.
        level_dbfs: level of the scene's speech; each piece differs by about level_spread_db.
        keyword_above_db: keywords are this much louder than the other pieces.
        noise: share of scenes with audible noise, snr_db below the speech.
        noise_drift_db: the noise level drifts this far up and down.
        noise_layers, coloured: largest number of noises at once; share of them that is synthetic.
        voices: share of scenes in which another speaker talks throughout, as on a television,
            voices_snr_db softer than the speech.
        speed, reverb: share of pieces that are faster or slower; share of scenes with echoes.
    """

    keyword: float = 1.0
    other: float = 0.6
    cut: float = 0.15
    double: float = 0.1
    speech: float = 0.1
    close: float = 0.5
    short_pause: tuple[float, float] = (0.0, 0.4)
    long_pause: tuple[float, float] = (0.4, 1.5)
    speech_seconds: tuple[float, float] = (1.0, 4.0)
    level_dbfs: tuple[float, float] = (-45.0, -15.0)
    level_spread_db: float = 3.0
    keyword_above_db: tuple[float, float] = (0.0, 0.0)
    noise: float = 0.7
    snr_db: tuple[float, float] = (3.0, 30.0)
    noise_drift_db: float = 6.0
    noise_layers: int = 2
    coloured: float = 0.3
    voices: float = 0.0
    voices_snr_db: tuple[float, float] = (3.0, 20.0)
    speed: float = 0.5
    reverb: float = 0.2


class Piece(NamedTuple):
    """An utterance for a scene: samples, index of its word, where the word begins and ends, and its recording.

    Attributes:
        recording: index into the material; None for speech and for anything except a whole word.
    """

    samples: FloatArray
    word: int
    onset: int
    end: int
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """An utterance in a scene: index into the material's words, place in samples, and the recording of a word."""

    word: int
    start: int
    end: int
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Samples at 16 kHz, shape (n_samples,), float32, and the utterances in them, ordered by their start."""

    samples: FloatArray
    spoken: list[Spoken]


def compose(
    material: Material, style: Style, seconds: float, random: np.random.Generator, background: FloatArray | None = None
) -> Scene:
    """Make a scene of the given length.

    Args:
        background: background audio, shape (seconds * RATE_HZ,), float32. The speech is louder by
            `snr_db`, but not below the style's lowest level. None for noise of the material.
    """
    n_samples = round(seconds * RATE_HZ)
    samples = np.zeros(n_samples, np.float32)
    snr_db = random.uniform(*style.snr_db) if random.random() < style.noise else 60.0
    softest_db, loudest_db = style.level_dbfs
    level_db = (
        random.uniform(softest_db, loudest_db)
        if background is None
        else max(softest_db, min(0, dbfs(background) + snr_db))
    )
    spoken = []
    at = round(random.uniform(0.1, 1.0) * RATE_HZ)
    while True:
        piece, word, onset, end, recording = _piece(material, style, random)
        if at + end - onset > n_samples:
            break
        piece_db = level_db + random.normal(0, style.level_spread_db)
        if word < len(material.keywords) and any(style.keyword_above_db):
            piece_db += random.uniform(*style.keyword_above_db)
        piece = piece * np.float32(10 ** (piece_db / 20))
        _lay(samples, piece, at - onset)
        spoken.append(Spoken(word, at, at + end - onset, recording))
        pause = style.short_pause if random.random() < style.close else style.long_pause
        at += end - onset + round(random.uniform(*pause) * RATE_HZ)
    if len(material.speech) and random.random() < style.voices:
        voices = _voices(material, n_samples, style, random)
        samples += voices * np.float32(10 ** ((level_db - random.uniform(*style.voices_snr_db)) / 20))
        spoken.insert(0, Spoken(material.labels.index(UNKNOWN), 0, n_samples))
    if random.random() < style.reverb:
        samples = augment.reverberate(samples, RATE_HZ, random)
    samples += noise_bed(material, n_samples, level_db - snr_db, style, random) if background is None else background
    return Scene(augment.limit(samples), spoken)


def noise_bed(
    material: Material, n_samples: int, level_dbfs: float, style: Style, random: np.random.Generator
) -> FloatArray:
    """Noise with a drifting level, never silent: recordings, synthetic noise, or both, and a converter's hiss.

    Shape: -> (n_samples,), float32.
    """
    bed = np.zeros(n_samples, np.float32)
    for _ in range(random.integers(1, style.noise_layers + 1)):
        if not len(material.noises) or random.random() < style.coloured:
            layer = augment.coloured_noise(n_samples, random.uniform(0, 2), random)
        else:
            layer = _recorded_noise(material, n_samples, random)
        bed += layer * augment.drifting_gain(n_samples, RATE_HZ, style.noise_drift_db, random)
    hiss = random.standard_normal(n_samples, np.float32) * np.float32(10 ** (_HISS_DBFS / 20))
    return hiss + bed * np.float32(10 ** (level_dbfs / 20) / max(augment.rms(bed), 1e-6))


def _recorded_noise(material: Material, n_samples: int, random: np.random.Generator) -> FloatArray:
    """Noise recordings, one after another if they are short, each with a root mean square of about 1."""
    lengths = material.lengths[material.noises]
    noise = np.zeros(n_samples, np.float32)
    at = 0
    while at < n_samples:
        index = random.choice(material.noises, p=lengths / lengths.sum())
        length = int(material.lengths[index])
        start = int(random.integers(0, max(1, length - n_samples)))
        piece = material.samples(index, start, min(n_samples, length - start))
        _lay(noise, piece / np.float32(max(augment.rms(piece), _SILENT)), at)
        at += len(piece) - _FADE_SAMPLES
    return noise


def _voices(material: Material, n_samples: int, style: Style, random: np.random.Generator) -> FloatArray:
    """Continuous keyword-free speech; each piece has a root mean square of 1. Shape: -> (n_samples,), float32."""
    voices = np.zeros(n_samples, np.float32)
    at = 0
    while at < n_samples:
        piece = _speech(material, random.uniform(*style.speech_seconds), random).samples
        _lay(voices, piece / np.float32(max(augment.rms(piece), _SILENT)), at)
        at += max(len(piece), _FADE_SAMPLES)
    return voices


def _piece(material: Material, style: Style, random: np.random.Generator) -> Piece:
    """A random utterance with a root mean square of 1."""
    shares = np.array([getattr(style, kind) for kind in _KINDS])
    available = np.array([True, len(material.others) > 0, True, True, len(material.speech) > 0])
    shares = shares * available
    kind = _KINDS[random.choice(len(_KINDS), p=shares / shares.sum())]
    if kind in ("keyword", "other"):
        piece = _word(material, kind == "keyword", random)
    elif kind in ("cut", "double"):
        piece = (_part if kind == "cut" else _double)(material, random)._replace(word=material.labels.index(UNKNOWN))
    else:
        piece = _speech(material, random.uniform(*style.speech_seconds), random)
    if random.random() < style.speed:
        piece = _at_speed(piece, random.uniform(0.85, 1.18))
    level = augment.rms(piece.samples[piece.onset : piece.end])
    return piece._replace(samples=piece.samples / np.float32(max(level, 1e-5)))


def _part(material: Material, random: np.random.Generator) -> Piece:
    """A word without its first or last 35 to 65 %."""
    samples, word, onset, end, _ = _word(material, random.random() < 0.7, random)
    lost = int((end - onset) * random.uniform(0.35, 0.65))
    if random.random() < 0.5:
        return Piece(samples[onset + lost :], word, 0, end - onset - lost)
    return Piece(samples[: end - lost], word, onset, end - lost)


def _double(material: Material, random: np.random.Generator) -> Piece:
    """Part of a word, followed by the second half of another."""
    head = _part(material, random)
    other, second, first, last, _ = _word(material, random.random() < 0.5, random)
    if second == head.word:  # otherwise head and tail could form the whole word
        other, first, last = other[::-1], len(other) - last, len(other) - first
    middle = (first + last) // 2
    tail = other[middle:]
    level = augment.rms(head.samples[head.onset : head.end])
    ratio = level / max(augment.rms(tail[: max(1, (last - first) // 2)]), 1e-5)
    samples = np.concatenate([head.samples[: head.end], tail * np.float32(ratio)])
    return Piece(samples, head.word, head.onset, head.end + last - middle)


def _at_speed(piece: Piece, factor: float) -> Piece:
    """Make a piece faster and higher, or slower and lower."""
    samples = augment.change_speed(piece.samples, factor)
    onset, end = round(piece.onset / factor), min(round(piece.end / factor), len(samples))
    return piece._replace(samples=samples, onset=onset, end=end)


def _word(material: Material, keyword: bool, random: np.random.Generator) -> Piece:
    """A clip of a word, with a random part of the audio around it."""
    if keyword or not len(material.others):
        indices = material.keywords[random.integers(len(material.keywords))]
    else:
        indices = material.others
    index = random.choice(indices)
    onset, end, length = material.onsets[index], material.ends[index], material.lengths[index]
    margin = round(_MARGIN_SECONDS * RATE_HZ)
    first = int(random.integers(0, max(1, onset - margin + 1))) if onset > margin else 0
    last = int(random.integers(min(end + margin, length - 1), length)) if end + margin < length else int(length)
    samples = material.samples(index, first, last - first)
    return Piece(samples, int(material.word_of[index]), int(onset - first), int(end - first), int(index))


def _speech(material: Material, seconds: float, random: np.random.Generator) -> Piece:
    """Some seconds of speech, cut at the quietest place near each random end."""
    lengths = material.lengths[material.speech]
    index = random.choice(material.speech, p=lengths / lengths.sum())
    length = int(material.lengths[index])
    wanted = min(length, round(seconds * RATE_HZ))
    first = int(random.integers(0, length - wanted + 1))
    slack = RATE_HZ // 4
    first, last = max(0, first - slack), min(length, first + wanted + slack)
    samples = material.samples(index, first, last - first)
    if last - first > 4 * slack:
        samples = samples[_quietest(samples[: 2 * slack]) :]
        samples = samples[: len(samples) - 2 * slack + _quietest(samples[-2 * slack :])]
    return Piece(samples, material.labels.index(UNKNOWN), 0, len(samples))


def _quietest(samples: FloatArray) -> int:
    """The middle of the quietest 40 ms, in samples."""
    frame = RATE_HZ // 25
    n_frames = len(samples) // frame
    energy = np.sum(np.square(samples[: n_frames * frame].reshape(n_frames, frame)), axis=1)
    return int(np.argmin(energy)) * frame + frame // 2


def _lay(samples: FloatArray, piece: FloatArray, at: int) -> None:
    """Add a piece with faded edges; drop anything outside the samples."""
    piece = piece.copy()
    n_fade = min(_FADE_SAMPLES, len(piece) // 2)
    ramp = np.linspace(0, 1, n_fade, dtype=np.float32)
    piece[:n_fade] *= ramp
    piece[len(piece) - n_fade :] *= ramp[::-1]
    first, last = max(0, at), min(len(samples), at + len(piece))
    samples[first:last] += piece[first - at : last - at]
