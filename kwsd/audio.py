"""Samples, the sample clock, chunks, and raw PCM.

Law: inside kwsd audio is mono float32 in [-1, 1], and time is a count of samples since the start of
the stream. Audio from a file or a device is converted to that form here, once. Only a chunk of a
shared device has several columns, one for each stream.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from kwsd.typed import Between

FloatArray = NDArray[np.float32]

PCM_ENCODINGS: dict[str, np.dtype[Any]] = {"s16le": np.dtype("<i2"), "s32le": np.dtype("<i4"), "f32le": np.dtype("<f4")}
"""Encodings of raw PCM, with the names that ffmpeg and PulseAudio use."""

RATES_HZ = (4000, 384000)
"""Sample rates that kwsd accepts: from half of the telephone's to twice the best converters'."""

MAX_CHANNELS = 64

Channel = Annotated[int, Between(1, MAX_CHANNELS)]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive samples from a source, any number of them.

    Attributes:
        samples: shape (n_samples,), float32, full scale is 1. From a source that several streams
            share: (n_samples, n_streams).
        position: sample clock of `samples[0]`, at the source's own rate. A position beyond the
            end of the previous chunk means that audio was lost in between.
    """

    samples: FloatArray
    position: int

    @property
    def end(self) -> int:
        return self.position + len(self.samples)


@dataclass(frozen=True, kw_only=True)
class PcmFormat:
    """How raw PCM is encoded; channels are interleaved."""

    rate_hz: Annotated[int, Between(*RATES_HZ)] = 16000
    channels: Annotated[int, Between(1, MAX_CHANNELS)] = 1
    encoding: Literal["s16le", "s32le", "f32le"] = "s16le"


class PcmDecoder:
    """Turns bytes of raw PCM into mono samples, and keeps the bytes of an unfinished sample.

    Args:
        channel: counted from 1; None for the mean of all channels.
    """

    def __init__(self, pcm: PcmFormat, channel: int | None = None) -> None:
        self._pcm, self._channel = pcm, channel
        self._n_bytes = PCM_ENCODINGS[pcm.encoding].itemsize * pcm.channels  # of one sample of all channels
        self._pending = b""

    def push(self, data: bytes) -> None:
        """Append bytes, as many as there are."""
        self._pending += data

    @property
    def n_samples(self) -> int:
        """Whole samples that `take` can return now."""
        return len(self._pending) // self._n_bytes

    def take(self, most: float = math.inf) -> FloatArray:
        """Remove and return up to `most` samples. Shape: -> (n_samples,), float32."""
        end = int(min(most, self.n_samples)) * self._n_bytes
        data, self._pending = self._pending[:end], self._pending[end:]
        return decode_pcm(data, self._pcm.encoding, self._pcm.channels, self._channel)


def to_mono(samples: NDArray[Any], channel: int | None = None) -> FloatArray:
    """Take one channel, or the mean of all, and clip to full scale as a converter does.

    NaN becomes 0, because a filter would never get rid of it.

    Args:
        samples: shape (n_samples,) or (n_samples, n_channels).
        channel: an existing channel, counted from 1; None for the mean.

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


def decode_pcm(data: bytes, encoding: str, n_channels: int = 1, channel: int | None = None) -> FloatArray:
    """Decode whole samples of interleaved raw PCM; `channel` as in `to_mono`.

    Shape: n_samples * n_channels encoded values -> (n_samples,), float32.
    """
    dtype = PCM_ENCODINGS[encoding]
    values = np.frombuffer(data, dtype).reshape(-1, n_channels)
    if dtype.kind == "f":
        return to_mono(values, channel)
    mono = values[:, (channel or 1) - 1] if channel or n_channels == 1 else values.mean(axis=1)
    return mono.astype(np.float32) * np.float32(2.0 ** (1 - 8 * dtype.itemsize))


def fit_length(samples: FloatArray, n_samples: int) -> FloatArray:
    """Centre a clip in `n_samples`: cut both ends of a longer one, pad a shorter one with zeros.

    Shape: (any,) -> (n_samples,), float32.
    """
    surplus = len(samples) - n_samples
    if surplus >= 0:
        return samples[surplus // 2 : surplus // 2 + n_samples]
    before = -surplus // 2
    return np.pad(samples, (before, -surplus - before))


def dbfs(samples: FloatArray) -> float:
    """Root mean square in dB relative to a full-scale square wave; -120 for silence."""
    return decibels(float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0)


def decibels(power: float) -> float:
    """A mean square in dB relative to a full-scale square wave; -120 for silence."""
    return 10.0 * float(np.log10(max(power, 1e-12)))


def is_silent(samples: NDArray[Any], full_scale: float = 1.0) -> bool:
    """Whether a converter without a microphone gives such samples: a constant, and its last bit of 16."""
    return len(samples) == 0 or float(samples.max()) - float(samples.min()) <= 2 / 32768 * full_scale
