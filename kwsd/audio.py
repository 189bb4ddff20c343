"""Samples, the sample clock and the chunk.

The law of this file: inside kwsd audio is mono float32 in [-1, 1), and time is a count of
samples since the start of the stream. Whatever a file or a device delivers is brought to
that form here, once.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from kwsd.errors import AudioError

FloatArray = NDArray[np.float32]

PCM_ENCODINGS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "s32le": np.dtype("<i4"), "f32le": np.dtype("<f4")}
"""Encodings of raw PCM, named as ffmpeg and PulseAudio name them."""

RATES_HZ = (4000, 384000)
"""Sample rates from the telephone's half to the best converters' double."""

MAX_CHANNELS = 64

# A writer that cannot seek back (a pipe) leaves a placeholder near the type's maximum.
_UNKNOWN_RIFF_SIZE = 0x7FFF_0000


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a source delivers: consecutive samples, any number of them.

    Attributes:
        samples: shape (n_samples,), float32, full scale is 1.
        position: sample clock of `samples[0]`, counted at the source's own rate. It is
            larger than the end of the previous chunk when audio was lost between them.
    """

    samples: FloatArray
    position: int

    @property
    def end(self) -> int:
        return self.position + len(self.samples)


def to_mono(samples: NDArray[Any], channel: int | None = None) -> FloatArray:
    """Clip to full scale, as a converter does, and take one channel, or the mean of all.

    NaN becomes 0: one of them would never leave a filter.

    Args:
        samples: shape (n_samples,) or (n_samples, n_channels).
        channel: counted from 1, and there; None for the mean.

    Returns:
        shape (n_samples,), float32.
    """
    if channel is not None and samples.ndim == 2:
        samples = samples[:, channel - 1]
    finite = np.nan_to_num(np.clip(samples, -1.0, 1.0), nan=0.0)
    mono = finite if finite.ndim == 1 else finite.mean(axis=1)
    return np.asarray(mono, np.float32)


def decode_pcm(data: bytes, encoding: str, n_channels: int, channel: int | None = None) -> FloatArray:
    """Turn whole frames of interleaved raw PCM into mono samples; `channel` as in `to_mono`.

    Shape: n_samples * n_channels encoded values -> (n_samples,), float32.
    """
    dtype = PCM_ENCODINGS[encoding]
    values = np.frombuffer(data, dtype).reshape(-1, n_channels)
    full_scale = 1.0 if dtype.kind == "f" else 2.0 ** (8 * dtype.itemsize - 1)
    return to_mono(values.astype(np.float64) / full_scale, channel)


def open_recording(path: Path) -> soundfile.SoundFile:
    """Open a recording whose header and length are sound; close it, or use it in `with`.

    libsndfile shortens a truncated file without a word, so the RIFF header is compared
    with the size on disk first.

    Raises:
        AudioError: missing, empty, truncated, or nothing that libsndfile can read.
    """
    _refuse_truncated(path)
    try:
        file = soundfile.SoundFile(os.fsencode(path))  # any name that the file system has
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise AudioError(f"{path}: not a readable recording ({reason})") from None
    if file.frames == 0 or not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        file.close()
        reason = f"has a rate of {file.samplerate} Hz" if file.frames else "holds no audio"
        raise AudioError(f"{path}: {reason}; kwsd hears {RATES_HZ[0]} to {RATES_HZ[1]} Hz")
    return file


def read_recording(path: Path) -> tuple[FloatArray, int]:
    """Read a whole recording.

    Returns:
        mono samples of shape (n_samples,), and the rate in Hz.

    Raises:
        AudioError: as `open_recording`, or damaged further in.
    """
    with open_recording(path) as file:
        return read_block(file, path, -1), file.samplerate


def read_block(file: soundfile.SoundFile, path: Path, n_samples: int, channel: int | None = None) -> FloatArray:
    """Read up to `n_samples` mono samples (all that is left for -1); none at the end. `channel` as in `to_mono`.

    Raises:
        AudioError: the data is damaged.
    """
    try:
        return to_mono(file.read(n_samples, dtype="float32", always_2d=True), channel)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged recording ({error.error_string})") from None


def fit_length(samples: FloatArray, n_samples: int) -> FloatArray:
    """Centre a clip in `n_samples`: cut what is too long, pad what is short with zeros.

    Shape: (any,) -> (n_samples,), float32.
    """
    surplus = len(samples) - n_samples
    if surplus >= 0:
        return samples[surplus // 2 : surplus // 2 + n_samples]
    before = -surplus // 2
    return np.pad(samples, (before, -surplus - before))


def dbfs(samples: FloatArray) -> float:
    """Root mean square in dB below a full-scale square wave; -120 for silence."""
    return decibels(float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0)


def decibels(power: float) -> float:
    """A mean square in dB below a full-scale square wave; -120 for silence."""
    return 10.0 * float(np.log10(max(power, 1e-12)))


def _refuse_truncated(path: Path) -> None:
    try:
        if path.exists() and not path.is_file():
            raise AudioError(f"{path}: not a file; raw PCM from a pipe goes to --source -")
        with path.open("rb") as file:
            header = file.read(12)
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}") from None
    if not header:
        raise AudioError(f"{path}: empty file")
    if header[:4] != b"RIFF":
        return
    if len(header) < 12:
        raise AudioError(f"{path}: truncated inside its header")
    declared = struct.unpack("<I", header[4:8])[0] + 8
    if size < declared < _UNKNOWN_RIFF_SIZE:
        raise AudioError(f"{path}: truncated, {size} of {declared} bytes are there")
