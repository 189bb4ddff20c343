"""Memory: what a model remembers of streams, a row for each, so that it hears their newest frames alone.

The law of this file: a row is what its stream has made it, to the last bit; which rows are
stepped together changes nothing.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.card import ModelCard
from kwsd.runtime import ort

IntArray = NDArray[np.int64]
Rows = IntArray | slice
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
    """For a step graph: inputs `frames` and `past_0`, …, outputs `posteriors` and what was seen, pasts at its end.

    Args:
        on_cpu: it runs there. Another device has inputs of its own, which are copied when they are bound.

    Rows go through the graph in blocks that stay in a core's cache, by arrays that it reads and
    writes where they lie: fresh ones for every run would cost as much as the run. A single row
    is not even copied: what is written in one turn is read in the next.
    """

    _frames: FloatArray
    _posteriors: FloatArray
    _pasts: list[FloatArray]
    _before: list[FloatArray]
    _after: list[FloatArray]
    _seen: list[FloatArray]
    _seen_before: list[FloatArray]
    _turn: bool

    def __init__(self, session: ort.InferenceSession, n_rows: int, on_cpu: bool = True) -> None:
        self._session, self._on_cpu = session, on_cpu
        inputs, self._outputs = session.get_inputs(), [one.name for one in session.get_outputs()]
        self._inputs = [one.name for one in inputs]
        nothing = [np.zeros((1, *one.shape[1:]), np.float32) for one in inputs]
        outputs = session.run(None, dict(zip(self._inputs, nothing, strict=True)))  # their lengths are not declared
        self._shapes = {
            name: array.shape[1:]
            for name, array in zip([*self._inputs, *self._outputs], [*nothing, *outputs], strict=True)
        }
        self._hold([np.zeros((n_rows, *past.shape[1:]), np.float32) for past in nothing[1:]])

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `Memory.step`."""
        if self._is_alone:
            self._frames[:] = frames
            self._run(1, turned=self._turn)
            self._turn = not self._turn
            return self._posteriors.copy()
        posteriors = np.empty((len(rows), *self._posteriors.shape[1:]), np.float32)
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[at : at + _ROWS_AT_ONCE]
            n = len(block)
            self._frames[:n] = frames[at : at + n]
            for past, before in zip(self._pasts, self._before, strict=True):
                np.take(past, block, axis=0, out=before[:n], mode="clip")  # no buffer for what cannot be out of bounds
            self._run(n)
            for past, after in zip(self._pasts, self._after, strict=True):
                past[block] = after[:n]
            posteriors[at : at + n] = self._posteriors[:n]
        return posteriors

    def forget(self, row: int) -> None:
        """As `Memory.forget`."""
        for past in self._newest:
            past[row] = 0

    def add_rows(self, n: int) -> None:
        """As `Memory.add_rows`."""
        self._hold([more_rows(past, n) for past in self._newest])

    @property
    def _is_alone(self) -> bool:
        return len(self._pasts[0]) == 1

    @property
    def _newest(self) -> list[FloatArray]:
        return self._after if self._turn else self._pasts

    def _hold(self, pasts: list[FloatArray]) -> None:
        """Room for rows with these pasts: for a single one, two of what was seen, each the past of the other."""
        n_at_once = min(len(pasts[0]), _ROWS_AT_ONCE)

        def room(names: list[str]) -> list[FloatArray]:
            return [np.zeros((n_at_once, *self._shapes[name]), np.float32) for name in names]

        def ends(seen: list[FloatArray]) -> list[FloatArray]:
            return [one[:, -past.shape[1] :] for one, past in zip(seen, pasts, strict=True)]

        self._pasts, self._turn = pasts, False
        self._seen = room(self._outputs[1:])
        self._after = ends(self._seen)
        if self._is_alone:
            self._seen_before = room(self._outputs[1:])
            self._before = self._pasts = ends(self._seen_before)
            for before, past in zip(self._before, pasts, strict=True):
                before[:] = past
        else:
            self._before = room(self._inputs[1:])
        [self._frames], [self._posteriors] = room(self._inputs[:1]), room(self._outputs[:1])
        self._bindings: dict[tuple[int, bool], ort.IOBinding] = {}

    def _run(self, n: int, turned: bool = False) -> None:
        """The first `n` rows of `_frames` and `_before` become those of `_posteriors` and `_seen`; turned, back."""
        if (n, turned) not in self._bindings or not self._on_cpu:
            before, seen = (self._after, self._seen_before) if turned else (self._before, self._seen)
            binding = self._session.io_binding()
            for name, array in zip(self._inputs, (self._frames, *before), strict=True):
                binding.bind_cpu_input(name, array[:n])
            for name, array in zip(self._outputs, (self._posteriors, *seen), strict=True):
                binding.bind_output(name, "cpu", 0, np.float32, array[:n].shape, array.ctypes.data)
            self._bindings[n, turned] = binding
        self._session.run_with_iobinding(self._bindings[n, turned])


_ROWS_AT_ONCE = 32


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
