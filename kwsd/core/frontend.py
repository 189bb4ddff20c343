"""The front end: resampler, frames, log spectrogram. The only place where audio becomes features.

Law: training, export, evaluation and the daemon all call this code. The streaming form equals the
batch form for any chunking, except for the resampler's rounding. Everything is local to one frame, because a stream
could not compute anything that needs the whole clip.

Exactness: NumPy's FFT computes each row by itself. BLAS picks an order of summation that depends on
the shapes, so the mel product is always computed for one frame at a time. Frames are therefore
bit-identical for any chunking and any batch. soxr's streaming and one-shot forms differ only by
rounding, at most about 1e-6 of full scale.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view

from kwsd.audio import RATES_HZ, FloatArray, fit_length
from kwsd.typed import Between

_BLOCK_BYTES = 100_000
"""Size of the spectra that are computed at once. The C library maps and unmaps arrays of 128 KiB or more at each call,
which makes a frame 1.6 times slower."""

_Samples = Annotated[int, Between(1, 16384)]


@dataclass(frozen=True, slots=True)
class FrontendParams:
    """The parameters of the front end, stored in the model file.

    Attributes:
        name: name of this set of parameters.
        sample_rate_hz: the audio is resampled to this rate.
        frame_samples: samples under one Hann window.
        hop_samples: samples between the starts of two frames.
        fft_size: each frame is padded with zeros to this length.
        n_mel_bands: triangular mel bands, or 0 for the FFT's own linear bands.
        mel_low_hz, mel_high_hz: outer edges of the mel bands.
        log_floor: added to the power before the logarithm. Powers are densities (per Hz) of a
            signal whose full scale is 1, as in `scipy.signal.spectrogram`. 1e-12 corresponds to
            white noise of about -84 dBFS at 8 kHz: below any room, above digital silence.
        resampler: library and quality. Another one would be another front end.
    """

    name: str
    sample_rate_hz: Annotated[int, Between(*RATES_HZ)]
    frame_samples: _Samples
    hop_samples: _Samples
    fft_size: _Samples
    n_mel_bands: Annotated[int, Between(0, 1024)] = 0
    mel_low_hz: float = 0.0
    mel_high_hz: float = 0.0
    log_floor: Annotated[float, Between(0, 1, above=True)] = 1e-12
    resampler: Literal["soxr HQ"] = "soxr HQ"

    @property
    def n_bands(self) -> int:
        return self.n_mel_bands or self.fft_size // 2 + 1

    @property
    def digest(self) -> str:
        """Identifies these parameters: sha256 of their JSON, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def n_frames(self, n_samples: int) -> int:
        """Number of whole frames in `n_samples` at the model's rate."""
        return max(0, (n_samples - self.frame_samples) // self.hop_samples + 1)

    def n_samples(self, n_frames: int) -> int:
        """Samples from the start of the first of `n_frames` frames to the end of the last."""
        return (n_frames - 1) * self.hop_samples + self.frame_samples

    def problems(self) -> list[str]:
        """Contradictions between the fields."""
        found = []
        if self.fft_size < self.frame_samples:
            found.append("fft_size: smaller than frame_samples")
        if self.n_mel_bands and not 0 <= self.mel_low_hz < self.mel_high_hz <= self.sample_rate_hz / 2:
            found.append("mel_low_hz, mel_high_hz: not in ascending order below half the sample rate")
        return found


SPECTROGRAM_8K = FrontendParams(
    name="spectrogram_8k", sample_rate_hz=8000, frame_samples=160, hop_samples=80, fft_size=160
)
"""For the light-weight CNN: one second is 99 frames of 81 bands."""

LOGMEL_16K = FrontendParams(
    name="logmel_16k",
    sample_rate_hz=16000,
    frame_samples=480,
    hop_samples=160,
    fft_size=512,
    n_mel_bands=40,
    mel_low_hz=20.0,
    mel_high_hz=7600.0,
)
"""What most small keyword spotters use: one second is 98 frames of 40 bands."""

PARAMETER_SETS = {params.name: params for params in (SPECTROGRAM_8K, LOGMEL_16K)}


def log_spectrogram(samples: FloatArray, params: FrontendParams) -> FloatArray:
    """All whole frames of samples at the model's rate.

    With linear bands this equals `log(log_floor + Sxx.T)` of
    `scipy.signal.spectrogram(samples, rate, "hann", frame, frame - hop, detrend=False)`.

    Shape: (..., n_samples) -> (..., n_frames, n_bands), float32.
    """
    if params.n_frames(samples.shape[-1]) == 0:
        return np.empty((*samples.shape[:-1], 0, params.n_bands), np.float32)
    return log_spectra(frames_of(samples, params), params)


def frames_of(samples: FloatArray, params: FrontendParams) -> FloatArray:
    """A view of the frames. Shape: (..., n_samples) -> (..., n_frames, frame_samples)."""
    return sliding_window_view(samples, params.frame_samples, axis=-1)[..., :: params.hop_samples, :]


def log_spectra(frames: FloatArray, params: FrontendParams) -> FloatArray:
    """Features of frames. Shape: (..., n_frames, frame_samples) -> (..., n_frames, n_bands), float32."""
    n_bytes = np.dtype(np.complex64).itemsize * (params.fft_size // 2 + 1)  # of a spectrum
    n_at_once = max(1, _BLOCK_BYTES // (n_bytes * math.prod(frames.shape[1:-1])))
    if len(frames) <= n_at_once:
        return _log_spectra(frames, params)
    blocks = [_log_spectra(frames[at : at + n_at_once], params) for at in range(0, len(frames), n_at_once)]
    return np.concatenate(blocks)


def _log_spectra(frames: FloatArray, params: FrontendParams) -> FloatArray:
    spectrum = np.fft.rfft(frames * _scaled_hann(params), params.fft_size)
    power = spectrum.real**2 + spectrum.imag**2  # (..., n_frames, fft_size // 2 + 1)
    if params.n_mel_bands:
        power = np.vecmat(power, _mel_weights(params))
    else:
        power[..., 1 : (params.fft_size + 1) // 2] *= 2  # the other half of a real signal's spectrum
    logarithms: FloatArray = np.log(power + np.float32(params.log_floor))
    return logarithms


def resample(samples: FloatArray, from_hz: int, to_hz: int) -> FloatArray:
    """The batch form of the resampler.

    Shape: (n_samples,) -> (about n_samples * to_hz / from_hz,), float32.
    """
    if from_hz == to_hz or not len(samples):
        return samples
    resampled: FloatArray = soxr.resample(samples, from_hz, to_hz, quality="HQ")
    return resampled


def clip_features(samples: FloatArray, rate_hz: int, window_frames: int, params: FrontendParams) -> FloatArray:
    """One clip, centred in one window: the input of the export's parity check and of training's evaluation.

    Shape: (n_samples,) at `rate_hz` -> (window_frames, n_bands), float32.
    """
    at_rate = resample(samples, rate_hz, params.sample_rate_hz)
    return log_spectrogram(fit_length(at_rate, params.n_samples(window_frames)), params)


class Resampler:
    """The streaming form of the resampler. Its whole output equals `resample` of the whole, except for rounding."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self._from_hz, self._to_hz = from_hz, to_hz
        self.reset()

    def push(self, samples: FloatArray) -> FloatArray:
        """Resample a chunk. Shape: (any,) -> (any,), float32. The output lags by the filter's delay."""
        if self._stream is None:
            return samples
        resampled: FloatArray = self._stream.resample_chunk(samples)
        return resampled

    def flush(self) -> FloatArray:
        """End the stream and return what the filter still holds. Call `reset` before the next `push`."""
        if self._stream is None:
            return np.empty(0, np.float32)
        rest: FloatArray = self._stream.resample_chunk(np.empty(0, np.float32), last=True)
        return rest

    def reset(self) -> None:
        """Start a new stream."""
        same = self._from_hz == self._to_hz
        self._stream = (
            None if same else soxr.ResampleStream(self._from_hz, self._to_hz, 1, dtype="float32", quality="HQ")
        )


@lru_cache
def _scaled_hann(params: FrontendParams) -> FloatArray:
    """A periodic Hann window, scaled so that squared magnitudes are densities. Shape: (frame_samples,)."""
    n = np.arange(params.frame_samples)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / params.frame_samples)
    scale = np.sqrt(params.sample_rate_hz * np.sum(hann**2))
    return np.asarray(hann / scale, np.float32)


@lru_cache
def _mel_weights(params: FrontendParams) -> FloatArray:
    """Triangles at equal distances on HTK's mel scale, 2595 log10(1 + f / 700).

    Shape: (fft_size // 2 + 1, n_mel_bands).
    """
    low, high = (2595 * np.log10(1 + f / 700) for f in (params.mel_low_hz, params.mel_high_hz))
    edges_hz = 700 * (10 ** (np.linspace(low, high, params.n_mel_bands + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(params.fft_size, 1 / params.sample_rate_hz)[:, None]
    lower, peak, upper = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising = (bins_hz - lower) / (peak - lower)
    falling = (upper - bins_hz) / (upper - peak)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
