"""Takes: recordings of a word by its user, with the place of the word, or one line that says what is wrong."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.errors import LearnError
from kwsd.sources.recording import open_recording, read_recording

RATE_HZ = 16000
LONGEST_SECONDS = 10.0
_ENERGY_FRAME = RATE_HZ // 100
_PAUSE_FRAMES = 19  # a longer pause ends a word: 190 ms, more than a stop consonant's closure
_LOWEST_DB = -36.0  # a word's edges are above this, relative to its loudest 10 ms
_LOWEST_SHARE = 0.15  # and above this share of the way (in dB) from the quietest to the loudest
_EMPHASIS = 0.97  # pre-emphasis: this share of the previous sample is subtracted; the usual value
_MARGIN = RATE_HZ // 20  # kept on both sides of a word
_SILENT_PEAK = 10 ** (-50 / 20)
_CLIPPED_SHARE = 0.002
_FULL = 0.9  # of full scale
_SHORTEST, _LONGEST, _TAKEN = 0.2, 1.6, 1.2  # seconds of a word


@dataclass(frozen=True, slots=True)
class Take:
    """One recording of the word.

    Attributes:
        path: where it came from.
        samples: the whole recording, at 16 kHz.
        begin, end: of the word in it, in samples.
        note: what its user could do better; empty if nothing.
        synthesiser: its name if a synthesiser spoke; else empty.
    """

    path: Path
    samples: FloatArray
    begin: int
    end: int
    note: str = ""
    synthesiser: str = ""

    @property
    def is_synthetic(self) -> bool:
        """Whether a synthesiser spoke."""
        return bool(self.synthesiser)

    @property
    def word(self) -> FloatArray:
        """The word alone."""
        return self.samples[self.begin : self.end]

    @property
    def seconds(self) -> float:
        """How long the word lasts."""
        return len(self.word) / RATE_HZ


def read_take(path: Path) -> Take:
    """Read a recording of any rate, and find the word in it.

    Raises:
        AudioError: it cannot be read.
        LearnError: it is too long, silent, or holds nothing like a word.
    """
    with open_recording(path) as file:
        seconds = file.frames / file.samplerate
    if seconds > LONGEST_SECONDS:
        raise LearnError(f"{path}: lasts {seconds:.0f} s; a recording of a word may last {LONGEST_SECONDS:g} s")
    return cut_take(path, resampled(*read_recording(path)))


def resampled(samples: FloatArray, rate_hz: int) -> FloatArray:
    """Samples at 16 kHz."""
    at_rate: FloatArray = soxr.resample(samples, rate_hz, RATE_HZ)
    return at_rate


def cut_take(path: Path, samples: FloatArray) -> Take:
    """Find the word in samples at 16 kHz. `path` is for messages.

    Raises:
        LearnError: they are silent, or hold nothing like a word.
    """
    samples = np.nan_to_num(samples) - np.float32(np.mean(np.nan_to_num(samples)))
    peak = float(np.max(np.abs(samples), initial=0.0))
    if peak < _SILENT_PEAK:
        raise LearnError(f"{path}: is silent; is the microphone muted, or far away?")
    begin, end = word_edges((samples / peak * 32767).astype(np.int16))
    if end - begin < _SHORTEST * RATE_HZ:
        raise LearnError(
            f"{path}: its longest sound lasts {(end - begin) / RATE_HZ:.2f} s, which is no word; record it again"
        )
    note = ""
    if peak > _FULL and float(np.mean(np.abs(samples) > 0.98 * peak)) > _CLIPPED_SHARE:
        note = "too loud for the microphone"
    if end - begin > _LONGEST * RATE_HZ:
        note = f"no pause around the word, so its loudest {_TAKEN:g} s were taken"
        begin = _loudest(samples, round(_TAKEN * RATE_HZ))
        end = begin + round(_TAKEN * RATE_HZ)
    return Take(path, samples, max(0, begin - _MARGIN), min(end + _MARGIN, len(samples)), note)


def _loudest(samples: FloatArray, n_samples: int) -> int:
    """Where the part with the highest energy begins."""
    energy = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    return int(np.argmax(energy[n_samples:] - energy[:-n_samples]))


def word_edges(samples: NDArray[np.int16]) -> tuple[int, int]:
    """Find where the word of a recording begins and ends, in samples.

    A frame of 10 ms is loud if it is above -36 dB relative to the loudest frame, and above 15 % of
    the way (in dB) from the quietest frame to the loudest. A pause of 190 ms ends a stretch of loud
    frames. The word is the stretch with the largest sum of decibels above that threshold: a recording
    often begins with a click, which is louder than the word but shorter. High frequencies are
    emphasised first, so that even a soft "s" or "f" counts as part of its word.
    """
    n_frames = len(samples) // _ENERGY_FRAME
    if n_frames < 3:
        return 0, len(samples)
    emphasised = samples.astype(np.float32)
    emphasised[1:] -= _EMPHASIS * emphasised[:-1].copy()
    frames = emphasised[: n_frames * _ENERGY_FRAME].reshape(n_frames, -1)
    level_db = 10 * np.log10(np.mean(frames**2, axis=1) + 1)
    smooth = np.convolve(level_db, np.ones(3) / 3, "same")
    smooth[[0, -1]] = level_db[[0, -1]]
    loudest, quietest = smooth.max(), np.quantile(smooth, 0.1)
    threshold = max(loudest + _LOWEST_DB, quietest + _LOWEST_SHARE * (loudest - quietest))
    loud = np.flatnonzero(smooth >= threshold)
    begins = np.flatnonzero(np.diff(loud, prepend=-_PAUSE_FRAMES - 1) > _PAUSE_FRAMES)
    word = int(np.argmax(np.add.reduceat(smooth[loud] - threshold, begins)))
    stretch = np.split(loud, begins[1:])[word]
    return int(stretch[0]) * _ENERGY_FRAME, int(stretch[-1] + 1) * _ENERGY_FRAME
