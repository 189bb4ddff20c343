"""Scenes: continuous audio as a microphone hears it, and what is said in it when.

The law of this file: a scene is a function of the recordings, a style and a random
generator. Training cuts its windows out of scenes, and the evaluation's streams are scenes
of speakers that training never heard; so both know what a stream is made of: words that
follow each other closely, parts of words, speech, and noise that changes.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kwsd.audio import FloatArray, dbfs
from train.recordings import augment
from train.recordings.corpus import RATE_HZ, UNKNOWN
from train.recordings.material import Material

_FADE_SAMPLES = RATE_HZ // 100
_HISS_DBFS = -85.0  # of a quiet converter
_SILENT = 1e-3  # root mean square: what is softer in a recording of noise is its coder's
_MARGIN_SECONDS = 0.06  # at least so much of a clip is kept around its word


@dataclass(frozen=True, slots=True)
class Style:
    """What a scene sounds like. Seconds, decibels and shares; pairs are ranges, drawn evenly.

    Attributes:
        keyword, other, cut, double, speech: relative shares of what is said: a keyword,
            another word, a keyword or word of which a part is missing, two halves of
            different words, and some seconds of keyword-free speech.
        close: how many of the pauses between them are short (else long).
        short_pause, long_pause, speech_seconds: their lengths.
        level_dbfs: of the scene's speech; each piece differs by about level_spread_db.
        noise: how many scenes have audible noise, at snr_db below the speech.
        noise_drift_db: the noise's level wanders so far up and down.
        noise_layers, coloured: at most so many noises at once; how many of them are synthetic.
        voices: in how many scenes somebody else speaks all the time, as a television does, softer
            than the speech by voices_snr_db.
        speed, reverb: how many pieces are faster or slower, how many scenes echo.
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
    """Something to say: samples, index of its word, where that begins and ends in them, and whose recording it is.

    Attributes:
        recording: the material's; None of speech, and of what is no longer the whole word.
    """

    samples: FloatArray
    word: int
    onset: int
    end: int
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Spoken:
    """Something said in a scene: index into the material's words, where, in samples, and the recording of a word."""

    word: int
    start: int
    end: int
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """Samples at 16 kHz, shape (n_samples,), float32, and what is said in them, in the order of its begin."""

    samples: FloatArray
    spoken: list[Spoken]


def compose(
    material: Material, style: Style, seconds: float, random: np.random.Generator, room: FloatArray | None = None
) -> Scene:
    """Make a scene of so many seconds.

    Args:
        room: what there is beside the speech, which is louder than it by `snr_db`, and no softer
            than the style's softest; shape (seconds * RATE_HZ,), float32. None for noise of the
            material.
    """
    n_samples = round(seconds * RATE_HZ)
    samples = np.zeros(n_samples, np.float32)
    snr_db = random.uniform(*style.snr_db) if random.random() < style.noise else 60.0
    softest_db, loudest_db = style.level_dbfs
    level_db = random.uniform(softest_db, loudest_db) if room is None else max(softest_db, min(0, dbfs(room) + snr_db))
    spoken = []
    at = round(random.uniform(0.1, 1.0) * RATE_HZ)
    while True:
        piece, word, onset, end, recording = _piece(material, style, random)
        if at + end - onset > n_samples:
            break
        piece = piece * np.float32(10 ** ((level_db + random.normal(0, style.level_spread_db)) / 20))
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
    samples += noise_bed(material, n_samples, level_db - snr_db, style, random) if room is None else room
    return Scene(augment.limit(samples), spoken)


def noise_bed(
    material: Material, n_samples: int, level_dbfs: float, style: Style, random: np.random.Generator
) -> FloatArray:
    """Noise of a wandering level, never silent: recordings, colours that none has, or both, and a converter's hiss.

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
    """Recordings of noise, one after the other where they are short. Root mean square about 1 each."""
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
    """Keyword-free speech without an end, each piece of it at level 1. Shape: -> (n_samples,), float32."""
    voices = np.zeros(n_samples, np.float32)
    at = 0
    while at < n_samples:
        piece = _speech(material, random.uniform(*style.speech_seconds), random).samples
        _lay(voices, piece / np.float32(max(augment.rms(piece), _SILENT)), at)
        at += max(len(piece), _FADE_SAMPLES)
    return voices


def _piece(material: Material, style: Style, random: np.random.Generator) -> Piece:
    """Something to say, at level 1."""
    shares = np.array([style.keyword, style.other, style.cut, style.double, style.speech])
    available = np.array([True, len(material.others) > 0, True, True, len(material.speech) > 0])
    shares = shares * available
    kind = random.choice(5, p=shares / shares.sum())
    if kind < 2:
        piece = _word(material, kind == 0, random)
    elif kind < 4:
        piece = (_part if kind == 2 else _double)(material, random)._replace(word=material.labels.index(UNKNOWN))
    else:
        piece = _speech(material, random.uniform(*style.speech_seconds), random)
    if random.random() < style.speed:
        piece = _hurried(piece, random.uniform(0.85, 1.18))
    level = augment.rms(piece.samples[piece.onset : piece.end])
    return piece._replace(samples=piece.samples / np.float32(max(level, 1e-5)))


def _part(material: Material, random: np.random.Generator) -> Piece:
    """A word of which 35 to 65 % are missing, at its beginning or at its end."""
    samples, word, onset, end, _ = _word(material, random.random() < 0.7, random)
    lost = int((end - onset) * random.uniform(0.35, 0.65))
    if random.random() < 0.5:
        return Piece(samples[onset + lost :], word, 0, end - onset - lost)
    return Piece(samples[: end - lost], word, onset, end - lost)


def _double(material: Material, random: np.random.Generator) -> Piece:
    """Part of a word, and the second half of another."""
    head = _part(material, random)
    other, second, first, last, _ = _word(material, random.random() < 0.5, random)
    if second == head.word:  # its head and its tail would be the whole word
        other, first, last = other[::-1], len(other) - last, len(other) - first
    middle = (first + last) // 2
    tail = other[middle:]
    level = augment.rms(head.samples[head.onset : head.end])
    ratio = level / max(augment.rms(tail[: max(1, (last - first) // 2)]), 1e-5)
    samples = np.concatenate([head.samples[: head.end], tail * np.float32(ratio)])
    return Piece(samples, head.word, head.onset, head.end + last - middle)


def _hurried(piece: Piece, factor: float) -> Piece:
    """Faster and higher, or slower and lower."""
    samples = augment.change_speed(piece.samples, factor)
    onset, end = round(piece.onset / factor), min(round(piece.end / factor), len(samples))
    return piece._replace(samples=samples, onset=onset, end=end)


def _word(material: Material, keyword: bool, random: np.random.Generator) -> Piece:
    """A word's clip, with more or less of what is around it."""
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
    """Some seconds of speech, cut where it is quietest near the chosen places."""
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
    """Where the quietest 40 ms are."""
    frame = RATE_HZ // 25
    n_frames = len(samples) // frame
    energy = np.sum(np.square(samples[: n_frames * frame].reshape(n_frames, frame)), axis=1)
    return int(np.argmin(energy)) * frame + frame // 2


def _lay(samples: FloatArray, piece: FloatArray, at: int) -> None:
    """Add a piece with faded edges; what lies outside is lost."""
    piece = piece.copy()
    n_fade = min(_FADE_SAMPLES, len(piece) // 2)
    ramp = np.linspace(0, 1, n_fade, dtype=np.float32)
    piece[:n_fade] *= ramp
    piece[len(piece) - n_fade :] *= ramp[::-1]
    first, last = max(0, at), min(len(samples), at + len(piece))
    samples[first:last] += piece[first - at : last - at]
