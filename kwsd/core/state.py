"""State: what a model keeps of each stream between two runs, one row for each stream.

Law: a row depends on its own stream alone, to the last bit. Which rows share a run changes nothing.

A model without a step graph keeps windows (`WindowState`). A step graph has inputs `frames` and
`past_0`, `past_1`, … and outputs `posteriors` and `seen_0`, `seen_1`, …: the end of each `seen` is
the next `past`. `SingleState` keeps one row and never copies its past; `ManyStates` gathers and
scatters rows. Both let the graph read and write arrays in place, because allocating arrays for
every run would cost as much as the run.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.card import ModelCard
from kwsd.core.rows import IntArray, more_rows
from kwsd.core.runtime import ort

_ROWS_AT_ONCE = 32
"""Rows in one run: their values stay in a core's cache."""


class State(Protocol):
    """Rows of streams. A new row is as if its stream had just begun."""

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """Process one stride of some streams.

        Args:
            frames: shape (n, stride_frames, n_bands).
            rows: the row of each stream, shape (n,), ascending.

        Returns:
            the posteriors of the windows that end with these frames, (n, n_labels), float32.
        """
        ...

    def reset(self, row: int) -> None:
        """Start a new stream in a row."""
        ...

    def grown(self, n: int) -> "State":
        """The same rows and `n` new ones; the old object must not be used any more."""
        ...


class WindowState:
    """For a model without a step graph: keeps each window except for its oldest stride.

    Args:
        posteriors: `kwsd.core.model.Model.posteriors`.
    """

    def __init__(self, card: ModelCard, posteriors: Callable[[FloatArray], FloatArray], n_rows: int) -> None:
        self._window_frames, self._posteriors = card.window_frames, posteriors
        self._n_past = max(0, card.window_frames - card.stride_frames)
        self._past = np.zeros((n_rows, self._n_past, card.frontend.n_bands), np.float32)

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `State.step`.

        Each window has a run of its own. A larger batch is no faster for small networks, and its
        matrix products round differently, so the score would depend on what shares the batch.
        """
        windows = np.concatenate([self._past[rows], frames], axis=1)
        self._past[rows] = windows[:, windows.shape[1] - self._n_past :]
        return np.concatenate([self._posteriors(window[None, -self._window_frames :]) for window in windows])

    def reset(self, row: int) -> None:
        """As `State.reset`."""
        self._past[row] = 0

    def grown(self, n: int) -> "WindowState":
        """As `State.grown`."""
        self._past = more_rows(self._past, n)
        return self


class StepGraph:
    """A step graph: its session, and the shapes of its inputs and outputs without the batch.

    Attributes:
        frames, posteriors: one shape each.
        pasts, seen: one shape for each past; `seen` is longer.
    """

    def __init__(self, session: ort.InferenceSession, runs_on_cpu: bool) -> None:
        self._session, self._runs_on_cpu = session, runs_on_cpu
        self._inputs = [one.name for one in session.get_inputs()]
        self._outputs = [one.name for one in session.get_outputs()]
        zeros = [np.zeros((1, *one.shape[1:]), np.float32) for one in session.get_inputs()]
        outputs = session.run(None, dict(zip(self._inputs, zeros, strict=True)))  # the file declares no output lengths
        self.frames, *self.pasts = (array.shape[1:] for array in zeros)
        self.posteriors, *self.seen = (array.shape[1:] for array in outputs)

    def prepare(self, inputs: list[FloatArray], outputs: list[FloatArray]) -> Callable[[], None]:
        """A function that runs the graph from `inputs` to `outputs`, which stay where they are.

        Arrays are in the graph's order, contiguous, with the batch as their first axis.
        """

        def bind() -> ort.IOBinding:
            binding = self._session.io_binding()
            for name, array in zip(self._inputs, inputs, strict=True):
                binding.bind_cpu_input(name, array)
            for name, array in zip(self._outputs, outputs, strict=True):
                binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            return binding

        if not self._runs_on_cpu:  # binding copies the inputs to the device, so every run binds anew
            return lambda: self._session.run_with_iobinding(bind())
        binding = bind()
        return lambda: self._session.run_with_iobinding(binding)


def single_or_many(graph: StepGraph, n_rows: int) -> "SingleState | ManyStates":
    """New state for one stream or for several."""
    return SingleState(graph) if n_rows == 1 else ManyStates(graph, _zeros(graph.pasts, n_rows))


class SingleState:
    """One row of a step graph.

    Two buffers take turns: a run reads the past from the end of one and writes the other, so the
    past is never copied.
    """

    def __init__(self, graph: StepGraph) -> None:
        self._graph = graph
        self._frames, self._posteriors = _zeros([graph.frames, graph.posteriors], 1)
        read, written = _zeros(graph.seen, 1), _zeros(graph.seen, 1)
        self._pasts, self._next_pasts = _ends(read, graph), _ends(written, graph)
        self._run = graph.prepare([self._frames, *self._pasts], [self._posteriors, *written])
        self._next_run = graph.prepare([self._frames, *self._next_pasts], [self._posteriors, *read])

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `State.step`."""
        self._frames[:] = frames
        self._run()
        self._run, self._next_run = self._next_run, self._run
        self._pasts, self._next_pasts = self._next_pasts, self._pasts
        return self._posteriors.copy()

    def reset(self, row: int) -> None:
        """As `State.reset`."""
        for past in self._pasts:
            past[row] = 0

    def grown(self, n: int) -> "ManyStates":
        """As `State.grown`."""
        return ManyStates(self._graph, [more_rows(past, n) for past in self._pasts])


class ManyStates:
    """Many rows of a step graph: gathered into buffers for each run, and scattered after it.

    Args:
        pasts: one array for each past, shape (n_rows, ...).
    """

    def __init__(self, graph: StepGraph, pasts: list[FloatArray]) -> None:
        self._graph, self._pasts = graph, pasts
        n = min(len(pasts[0]), _ROWS_AT_ONCE)
        self._frames, self._posteriors = _zeros([graph.frames, graph.posteriors], n)
        self._before, self._seen = _zeros(graph.pasts, n), _zeros(graph.seen, n)
        self._after = _ends(self._seen, graph)
        self._runs: dict[int, Callable[[], None]] = {}

    def step(self, frames: FloatArray, rows: IntArray) -> FloatArray:
        """As `State.step`."""
        posteriors = np.empty((len(rows), *self._graph.posteriors), np.float32)
        for at in range(0, len(rows), _ROWS_AT_ONCE):
            block = rows[at : at + _ROWS_AT_ONCE]
            n = len(block)
            self._frames[:n] = frames[at : at + n]
            for past, before in zip(self._pasts, self._before, strict=True):
                np.take(past, block, axis=0, out=before[:n], mode="clip")  # "raise" would copy through a buffer
            self._run(n)
            for past, after in zip(self._pasts, self._after, strict=True):
                past[block] = after[:n]
            posteriors[at : at + n] = self._posteriors[:n]
        return posteriors

    def reset(self, row: int) -> None:
        """As `State.reset`."""
        for past in self._pasts:
            past[row] = 0

    def grown(self, n: int) -> "ManyStates":
        """As `State.grown`."""
        return ManyStates(self._graph, [more_rows(past, n) for past in self._pasts])

    def _run(self, n: int) -> None:
        """Run the graph on the first `n` rows of the buffers."""
        if n not in self._runs:
            inputs = [array[:n] for array in (self._frames, *self._before)]
            outputs = [array[:n] for array in (self._posteriors, *self._seen)]
            self._runs[n] = self._graph.prepare(inputs, outputs)
        self._runs[n]()


def _zeros(shapes: list[tuple[int, ...]], n: int) -> list[FloatArray]:
    return [np.zeros((n, *shape), np.float32) for shape in shapes]


def _ends(seen: list[FloatArray], graph: StepGraph) -> list[FloatArray]:
    """The next pasts: views of the ends of what was seen."""
    return [one[:, -past[0] :] for one, past in zip(seen, graph.pasts, strict=True)]


def step_through(state: State, windows: FloatArray, stride_frames: int) -> FloatArray:
    """Posteriors of whole windows, each processed as the beginning of a stream.

    Args:
        state: new, with a row for each window.
        windows: shape (n_windows, window_frames, n_bands).

    Returns:
        shape (n_windows, n_labels), float32.
    """
    rows = np.arange(len(windows))
    frames = np.pad(windows, ((0, 0), (-windows.shape[1] % stride_frames, 0), (0, 0)))
    for start in range(0, frames.shape[1], stride_frames):
        posteriors = state.step(frames[:, start : start + stride_frames], rows)
    return posteriors
