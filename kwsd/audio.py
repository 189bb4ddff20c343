"""Samples, the sample clock and the chunk.

The law of this file: inside kwsd audio is mono float32 in [-1, 1), and time is a count of
samples since the start of the stream. Whatever a file or a device delivers is brought to
that form here, once.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

PCM_ENCODINGS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "s32le": np.dtype("<i4"), "f32le": np.dtype("<f4")}
"""Encodings of raw PCM, named as ffmpeg and PulseAudio name them."""

RATES_HZ = (4000, 384000)
"""Sample rates from the telephone's half to the best converters' double."""

MAX_CHANNELS = 64


@dataclass(frozen=True, slots=True)
class Chunk:
    """What a source delivers: consecutive samples, any number of them.

    Attributes:
        samples: shape (n_samples,), float32, full scale is 1; from a source of several
            streams (n_samples, n_streams).
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
    if samples.ndim == 2 and (channel is not None or samples.shape[1] == 1):
        samples = samples[:, (channel or 1) - 1]
    finite = np.clip(samples, -1.0, 1.0)
    if np.isnan(finite).any():
        finite = np.nan_to_num(finite, nan=0.0)
    mono = finite if finite.ndim == 1 else finite.mean(axis=1)
    return np.asarray(mono, np.float32)


def decode_pcm(data: bytes, encoding: str, n_channels: int, channel: int | None = None) -> FloatArray:
    """Turn whole frames of interleaved raw PCM into mono samples; `channel` as in `to_mono`.

    Shape: n_samples * n_channels encoded values -> (n_samples,), float32.
    """
    dtype = PCM_ENCODINGS[encoding]
    values = np.frombuffer(data, dtype).reshape(-1, n_channels)
    if dtype.kind == "f":
        return to_mono(values, channel)
    mono = values[:, (channel or 1) - 1] if channel or n_channels == 1 else values.mean(axis=1)
    return mono.astype(np.float32) * np.float32(2.0 ** (1 - 8 * dtype.itemsize))


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
