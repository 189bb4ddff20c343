"""The window: the last second of frames, handed out every stride.

The law of this file: a frame that has come in is kept, never computed again, and "not
enough yet" is an empty array.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kwsd.audio import FloatArray


class FrameRing:
    """Keeps the newest frames and cuts them into overlapping windows."""

    def __init__(self, window_frames: int, stride_frames: int, n_bands: int) -> None:
        self._window_frames, self._stride_frames = window_frames, stride_frames
        self._empty = np.empty((0, n_bands), np.float32)
        self._frames = self._empty

    def push(self, frames: FloatArray) -> FloatArray:
        """Add frames; return the windows that they complete.

        The first window ends with frame `window_frames - 1` of the stream, each further one
        `stride_frames` later.

        Shape: (n_frames, n_bands) -> (n_windows, window_frames, n_bands), float32.
        """
        self._frames = np.concatenate([self._frames, frames])
        surplus = len(self._frames) - self._window_frames
        if surplus < 0:
            return np.empty((0, self._window_frames, self._frames.shape[1]), np.float32)
        views = sliding_window_view(self._frames, self._window_frames, axis=0)
        windows = views[:: self._stride_frames].transpose(0, 2, 1)
        self._frames = self._frames[len(windows) * self._stride_frames :]
        return windows

    def reset(self) -> None:
        self._frames = self._empty
