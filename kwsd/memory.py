"""Memory: what a model remembers of streams, a row for each, so that it hears their newest frames alone.

The law of this file: a row is what its stream has made it, to the last bit; which rows are
stepped together changes nothing.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.card import ModelCard
from kwsd.runtime import ort

IntArray = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)


class Memory(Protocol):
    """Rows of streams that have heard nothing, at first."""

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """Hear a stride more of some streams.

        Args:
            frames: shape (n, stride_frames, n_bands).
            rows: whose they are, shape (n,), ascending.

        Returns:
            the posteriors of the windows that end with these frames, (n, n_labels), float32.
        """
        ...

    def forget(self, row: int) -> None:
        """A row's stream begins anew."""
        ...

    def add_rows(self, n: int) -> None:
        """Room for `n` streams more."""
        ...


class WindowMemory:
    """For a model that knows whole windows only: a window without its oldest stride.

    Args:
        posteriors: as `kwsd.model.Model.posteriors`.
    """

    def __init__(self, card: ModelCard, posteriors: Callable[[FloatArray], FloatArray], n_rows: int) -> None:
        self._window_frames, self._posteriors = card.window_frames, posteriors
        self._n_past = max(0, card.window_frames - card.stride_frames)
        self._past = np.zeros((n_rows, self._n_past, card.frontend.n_bands), np.float32)

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `Memory.step`.

        One window a run: a larger batch is no faster for small networks, and its matrix
        products round otherwise, so what shares a batch would show in the scores.
        """
        windows = np.concatenate([self._past[rows], frames], axis=1)
        self._past[rows] = windows[:, windows.shape[1] - self._n_past :]
        return np.concatenate([self._posteriors(window[None, -self._window_frames :]) for window in windows])

    def forget(self, row: int) -> None:
        """As `Memory.forget`."""
        self._past[row] = 0

    def add_rows(self, n: int) -> None:
        """As `Memory.add_rows`."""
        self._past = more_rows(self._past, n)


class GraphMemory:
    """For a step graph: inputs `frames` and `past_0`, …, outputs `posteriors` and `next_0`, ….

    When all rows are stepped, the graph reads and writes their arrays where they lie: for a
    single stream handing them over costs a quarter of a run.
    """

    def __init__(self, session: ort.InferenceSession, n_rows: int) -> None:
        self._session = session
        self._inputs = [one.name for one in session.get_inputs()]
        self._outputs = [one.name for one in session.get_outputs()]
        self._shapes = {one.name: one.shape[1:] for one in (*session.get_inputs(), *session.get_outputs())}
        self._turn = 0
        self._hold([np.zeros((n_rows, *self._shapes[name]), np.float32) for name in self._inputs[1:]])

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `Memory.step`."""
        if len(rows) == len(self._posteriors):
            np.copyto(self._frames, frames)
            self._session.run_with_iobinding(self._bindings[self._turn])
            self._turn = 1 - self._turn
            return self._posteriors.copy()
        pasts = self._pasts[self._turn]
        inputs = dict(zip(self._inputs, (frames, *(past[rows] for past in pasts)), strict=True))
        posteriors, *following = self._session.run(None, inputs)
        for past, values in zip(pasts, following, strict=True):
            past[rows] = values
        new: FloatArray = posteriors
        return new

    def forget(self, row: int) -> None:
        """As `Memory.forget`."""
        for past in self._pasts[self._turn]:
            past[row] = 0

    def add_rows(self, n: int) -> None:
        """As `Memory.add_rows`."""
        self._hold([more_rows(past, n) for past in self._pasts[self._turn]])

    def _hold(self, pasts: list[FloatArray]) -> None:
        """Two sets of pasts: what is read in one turn is written in the next."""
        n_rows = len(pasts[0])
        self._pasts = (pasts, [np.zeros_like(past) for past in pasts])
        self._frames = np.zeros((n_rows, *self._shapes["frames"]), np.float32)
        self._posteriors = np.zeros((n_rows, *self._shapes["posteriors"]), np.float32)
        self._turn = 0
        self._bindings: list[Any] = [self._bound(self._pasts[turn], self._pasts[1 - turn]) for turn in (0, 1)]

    def _bound(self, pasts: list[FloatArray], following: list[FloatArray]) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in zip(self._inputs, (self._frames, *pasts), strict=True):
            binding.bind_cpu_input(name, array)
        for name, array in zip(self._outputs, (self._posteriors, *following), strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
        return binding


def step_through(memory: Memory, windows: FloatArray, stride_frames: int) -> FloatArray:
    """Posteriors of whole windows, each heard as a stream that begins with it.

    Args:
        memory: with a row for each.
        windows: shape (n_windows, window_frames, n_bands).

    Returns:
        shape (n_windows, n_labels), float32.
    """
    rows = np.arange(len(windows))
    frames = np.pad(windows, ((0, 0), (-windows.shape[1] % stride_frames, 0), (0, 0)))
    for start in range(0, frames.shape[1], stride_frames):
        posteriors = memory.step(frames[:, start : start + stride_frames], rows)
    return posteriors


def more_rows(values: NDArray[T], n: int) -> NDArray[T]:
    """The same with `n` rows of zeros more."""
    return np.concatenate([values, np.zeros((n, *values.shape[1:]), values.dtype)])
