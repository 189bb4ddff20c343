"""A clip: a recording of one word, as `kwsd label` and every evaluation of clips hear it.

Law: a clip of about a second is one window, its middle. A longer clip has a window for each stride,
and the windows with the loudest sound decide. With a network of `export.causal`, a clip's posteriors
do not depend on what shares its batch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray, fit_length
from kwsd.core.card import ModelCard
from kwsd.core.frontend import log_spectrogram, resample
from kwsd.core.rows import IntArray

_RUN_WINDOWS = 32  # a larger batch is no faster

_VIEWS = ((0.0, 1.0), (-0.06, 1.0), (0.06, 1.0), (0.0, 0.5), (0.0, 2.0))
"""Shift in seconds and gain. Without `augment` only the first is used."""

N_VIEWS = len(_VIEWS)


class ClipWindows(NamedTuple):
    """The windows of a clip.

    Attributes:
        frames: features of the clip, shape (n_frames, n_bands), float32.
        starts: first frame of each window, shape (n_windows,).
        energies: of the samples under each window, shape (n_windows,); 1 for a single window, which decides alone.
    """

    frames: FloatArray
    starts: IntArray
    energies: NDArray[np.float64]


def clip_windows(samples: FloatArray, rate_hz: int, card: ModelCard) -> ClipWindows:
    """Find the windows of a clip. A clip that exceeds a window by less than a stride is cut to its middle window.

    Args:
        samples: shape (n_samples,), float32, at `rate_hz`.
    """
    params = card.frontend
    samples = resample(samples, rate_hz, params.sample_rate_hz)
    if len(samples) - card.window_samples < card.stride_frames * params.hop_samples:
        samples = fit_length(samples, card.window_samples)
    frames = log_spectrogram(samples, params)
    last = len(frames) - card.window_frames
    starts = np.append(np.arange(0, last, card.stride_frames), last)
    if last == 0:
        return ClipWindows(frames, starts, np.ones(1))
    so_far = np.append(0.0, np.cumsum(np.square(samples, dtype=np.float64)))
    begins = starts * params.hop_samples
    return ClipWindows(frames, starts, so_far[begins + card.window_samples] - so_far[begins])


def clip_views(samples: FloatArray, rate_hz: int, card: ModelCard, n_views: int = N_VIEWS) -> list[ClipWindows]:
    """A clip as it is, then shifted, softer and louder: what `augment` averages over.

    Args:
        samples: shape (n_samples,), float32, at `rate_hz`.
    """
    window_samples = round(card.window_seconds * rate_hz)
    if n_views > 1:  # padding first, so that a shift cannot push a short clip out of the window
        samples = fit_length(samples, max(len(samples), window_samples))
    return [
        clip_windows(gain * _shift(samples, round(seconds * rate_hz)), rate_hz, card)
        for seconds, gain in _VIEWS[:n_views]
    ]


def _shift(samples: FloatArray, n_samples: int) -> FloatArray:
    """Move later by `n_samples`, or earlier if negative. The length stays; what moves out is lost."""
    if n_samples == 0:
        return samples
    if n_samples > 0:
        return np.pad(samples, (n_samples, 0))[: len(samples)]
    return np.pad(samples, (0, -n_samples))[-n_samples:]


def clip_posteriors(
    clips: Sequence[ClipWindows], card: ModelCard, posteriors: Callable[[FloatArray], FloatArray]
) -> FloatArray:
    """Posteriors of clips. Shape: -> (n_clips, n_labels), float32.

    For a longer clip, they are the weighted mean over its windows, with weights energy² · (1 - P(silence)).
    On validation clips in longer noise, this was better than the middle window, the loudest one, the
    highest keyword of any window, and other weights.

    Args:
        posteriors: of windows, as `kwsd.core.model.Model.posteriors`.
    """
    windows = [clip.frames[start : start + card.window_frames] for clip in clips for start in clip.starts]
    runs = [posteriors(np.stack(windows[at : at + _RUN_WINDOWS])) for at in range(0, len(windows), _RUN_WINDOWS)]
    of_clips = np.split(np.concatenate(runs), np.cumsum([len(clip.starts) for clip in clips])[:-1])
    silence = card.labels.index(card.silence)
    return np.stack([_mean(own, clip.energies, silence) for own, clip in zip(of_clips, clips, strict=True)])


def _mean(posteriors: FloatArray, energies: NDArray[np.float64], silence: int) -> FloatArray:
    if len(posteriors) == 1:  # to the last bit
        alone: FloatArray = posteriors[0]
        return alone
    loudness = np.square(energies / max(energies.max(), 1e-30))
    weights = loudness * (1 - posteriors[:, silence]) + 1e-30  # never all zero
    mean: FloatArray = (weights / weights.sum()).astype(np.float32) @ posteriors
    return mean
