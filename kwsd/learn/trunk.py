"""The trunk: the part of the network that a branch grows from, run on whole recordings.

A step is two frames. A span is the mean over five steps, a tenth of a second, and a window is five
spans in a row: shape (N_SPANS * n_channels,), the oldest span first.
"""

import hashlib
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kwsd.audio import FloatArray
from kwsd.core.card import ModelCard
from kwsd.core.frontend import log_spectrogram
from kwsd.core.runtime import CPU, open_session
from kwsd.learn.graft import N_SPANS, SPAN_STEPS, STEP_FRAMES, Graphs

_BLOCK_SECONDS = 30.0
_WARM_UP_SECONDS = 1.0  # after this, a step no longer depends on where the block began


class Trunk:
    """The trunk of a model.

    Args:
        graphs, card, path: of the model file.

    Attributes:
        digest: identifies the trunk: two models with the same one can share a pack.
        frontend: of the model.
    """

    def __init__(self, graphs: Graphs, card: ModelCard, path: Path) -> None:
        graph = graphs.trunk()
        self._session = open_session(graph, path, CPU)
        self.frontend = card.frontend
        self.digest = hashlib.sha256(graph).hexdigest()
        inputs = self._session.get_inputs()
        self._pasts = {one.name: np.zeros((1, *one.shape[1:]), np.float32) for one in inputs if one.name != "frames"}

    def steps(self, samples: FloatArray) -> FloatArray:
        """The values that a branch sees. Shape: (n_samples,) at the model's rate -> (n_steps, n_channels)."""
        rate_hz = self.frontend.sample_rate_hz
        warm_up, block = round(_WARM_UP_SECONDS * rate_hz), round(_BLOCK_SECONDS * rate_hz)
        padded = np.concatenate([np.zeros(warm_up, np.float32), samples])
        n_warm = self.frontend.n_frames(warm_up) // STEP_FRAMES
        parts = []
        for at in range(0, len(samples), block):
            frames = log_spectrogram(padded[at : at + warm_up + block], self.frontend)
            frames = frames[: len(frames) // STEP_FRAMES * STEP_FRAMES]
            [values] = self._session.run(["trunk"], {"frames": frames[None], **self._pasts})
            parts.append(values[0, :, n_warm:, 0].T)
        return np.concatenate(parts)


def spans_of(steps: FloatArray) -> FloatArray:
    """Means over spans that follow each other. Shape: (n_steps, n_channels) -> (n_steps // SPAN_STEPS, n_channels)."""
    n = len(steps) // SPAN_STEPS
    means: FloatArray = steps[: n * SPAN_STEPS].reshape(n, SPAN_STEPS, -1).mean(axis=1)
    return means


def windows_of(spans: FloatArray) -> FloatArray:
    """All windows. Shape: (n_spans, n_channels) -> (n_spans - N_SPANS + 1, N_SPANS * n_channels)."""
    if len(spans) < N_SPANS:
        return np.empty((0, N_SPANS * spans.shape[1]), np.float32)
    windows = sliding_window_view(spans, N_SPANS, axis=0).swapaxes(1, 2)
    return windows.reshape(len(windows), -1)
