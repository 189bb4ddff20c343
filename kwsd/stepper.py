"""Steps: a model hears the newest frames of a stream and what it remembers of the older ones.

The law of this file: a stepper keeps nothing itself. What it remembers of streams, their
pasts, are arrays with a row for each stream that go in and come out.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from kwsd.audio import FloatArray
from kwsd.card import ModelCard


class Stepper(Protocol):
    """Advances streams by a stride."""

    def begin(self, n_streams: int) -> list[FloatArray]:
        """The pasts of streams that have heard nothing. Shapes: (n_streams, ...)."""
        ...

    def step(self, frames: FloatArray, pasts: list[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """Hear a stride more of each stream.

        Args:
            frames: shape (n_streams, stride_frames, n_bands).
            pasts: of these streams, as `begin` or `step` gave them.

        Returns:
            the posteriors of the windows that end with these frames, (n_streams, n_labels),
            float32, and the next pasts.
        """
        ...


class WindowStepper:
    """Steps a model that knows whole windows only: its past is the window without its oldest stride.

    Args:
        posteriors: as `kwsd.model.Model.posteriors`.
    """

    def __init__(self, card: ModelCard, posteriors: Callable[[FloatArray], FloatArray]) -> None:
        self._card, self._posteriors = card, posteriors

    def begin(self, n_streams: int) -> list[FloatArray]:
        """As `Stepper.begin`."""
        n_past = max(0, self._card.window_frames - self._card.stride_frames)
        return [np.zeros((n_streams, n_past, self._card.frontend.n_bands), np.float32)]

    def step(self, frames: FloatArray, pasts: list[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """As `Stepper.step`.

        One window a run: a larger batch is no faster for small networks, and its matrix
        products round otherwise, so what shares a batch would show in the scores.
        """
        windows = np.concatenate([*pasts, frames], axis=1)[:, -self._card.window_frames :]
        posteriors = np.concatenate([self._posteriors(window[None]) for window in windows])
        return posteriors, [windows[:, self._card.stride_frames :]]


def step_through(stepper: Stepper, windows: FloatArray, stride_frames: int) -> FloatArray:
    """Posteriors of whole windows, each heard as a stream that begins with it.

    Shape: (n_windows, window_frames, n_bands) -> (n_windows, n_labels), float32.
    """
    n_lead = -windows.shape[1] % stride_frames
    frames = np.pad(windows, ((0, 0), (n_lead, 0), (0, 0)))
    pasts = stepper.begin(len(windows))
    for start in range(0, frames.shape[1], stride_frames):
        posteriors, pasts = stepper.step(frames[:, start : start + stride_frames], pasts)
    return posteriors
