"""The stream batch: many streams side by side, one row for each, advanced by shared runs.

Law: a row holds everything that its stream remembers after the resampler, and no row touches
another. A stream's detections depend neither on the other streams nor on how its samples were
chunked. Every stream with a whole stride takes part in the next run; no stream waits for another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray, decibels
from kwsd.core.card import ModelCard
from kwsd.core.decision import Decision
from kwsd.core.frontend import frames_of, log_spectra
from kwsd.core.rows import IntArray, Rows, more_rows
from kwsd.core.state import State


@dataclass(frozen=True, slots=True)
class Decided:
    """A keyword that fired in the stream of `row`, in the window that ends at `end` on the model's sample clock."""

    row: int
    label: str
    score: float
    end: int
    loudness_dbfs: float


@dataclass(frozen=True, slots=True)
class Windows:
    """One window of each of n streams, from one run.

    Attributes:
        rows: shape (n,).
        ends: sample clock of the windows' ends, at the model's rate, shape (n,).
        posteriors, scores: shape (n, n_labels), float32.
        decided: the keywords that fired.
    """

    rows: IntArray
    ends: IntArray
    posteriors: FloatArray
    scores: FloatArray
    decided: list[Decided]

    def of_one(self, n: int) -> "Windows":
        """The window of the n-th stream, without what was decided."""
        one = slice(n, n + 1)
        return Windows(self.rows[one], self.ends[one], self.posteriors[one], self.scores[one], [])


class StreamModel(Protocol):
    """What a stream batch needs of a model."""

    card: ModelCard

    def new_state(self, n_rows: int) -> State:
        """State for `n_rows` streams."""
        ...


class StreamBatch:
    """The rows of all streams of one model. Room for rows doubles when it is used up."""

    def __init__(self, model: StreamModel) -> None:
        n_rows, card = 1, model.card
        self._card, self._params = card, card.frontend
        self._stride_samples = card.stride_frames * self._params.hop_samples
        self._overlap = max(0, self._params.frame_samples - self._params.hop_samples)
        self._pending = np.zeros((n_rows, self._overlap + self._stride_samples), np.float32)
        self._frames = frames_of(self._pending, self._params)
        self._n_pending = [0] * n_rows
        self._ends = np.zeros(n_rows, np.int64)  # sample clocks of the ends of the last whole strides
        self._state = model.new_state(n_rows)
        self._energies = np.zeros((n_rows, -(-card.window_samples // self._stride_samples)), np.float32)
        self._decision = Decision(card, np.full((n_rows, len(card.labels)), np.inf))
        self._free = [0]

    def join(self, thresholds: NDArray[np.float64]) -> int:
        """Add a stream and return its row. `thresholds` come from `thresholds_of`."""
        if not self._free:
            self._double()
        row = self._free.pop()
        self.set_thresholds(row, thresholds)
        self.reset(row)
        return row

    def leave(self, row: int) -> None:
        """Remove a stream; its row is free for another one."""
        self._n_pending[row] = 0
        self._free.append(row)

    def set_thresholds(self, row: int, thresholds: NDArray[np.float64]) -> None:
        """Replace the thresholds of a row. Its stream goes on."""
        self._decision.set_thresholds(row, thresholds)

    def reset(self, row: int) -> None:
        """Start a new stream in a row, with its sample clock at 0.

        Windows end a whole number of strides after the first window. A few zero frames therefore
        precede the stream; the first window does not contain them.
        """
        n_lead = -self._card.window_frames % self._card.stride_frames * self._params.hop_samples
        self._pending[row] = 0
        self._n_pending[row] = n_lead
        self._ends[row] = self._overlap - n_lead
        self._energies[row] = 0
        self._state.reset(row)
        self._decision.reset(row)

    def process(self, chunks: Mapping[int, FloatArray]) -> Iterator[Windows]:
        """Process more samples of some streams. Iterate to the end: samples are processed only then.

        Args:
            chunks: for each row the next samples at the model's rate, shape (any,).

        Yields:
            the windows of each run, in the order of time.
        """
        width = self._pending.shape[1]
        while chunks:
            rests = {row: self._keep(row, samples) for row, samples in chunks.items()}
            due = sorted(row for row in rests if self._n_pending[row] == width)
            if due and (windows := self._advance(np.array(due))):
                yield windows
            chunks = {row: rest for row, rest in rests.items() if len(rest)}

    def _double(self) -> None:
        n = len(self._pending)
        self._pending = more_rows(self._pending, n)
        self._frames = frames_of(self._pending, self._params)
        self._energies = more_rows(self._energies, n)
        self._n_pending += [0] * n
        self._ends = more_rows(self._ends, n)
        self._state = self._state.grown(n)
        self._decision.add_rows(n)
        self._free = list(range(2 * n - 1, n - 1, -1))

    def _keep(self, row: int, samples: FloatArray) -> FloatArray:
        """Keep samples until a stride is complete; returns the samples after it."""
        n_pending = self._n_pending[row]
        taken = samples[: self._pending.shape[1] - n_pending]
        self._pending[row, n_pending : n_pending + len(taken)] = taken
        self._n_pending[row] += len(taken)
        return samples[len(taken) :]

    def _advance(self, rows: IntArray) -> Windows | None:
        """Process one stride of each of these rows; the windows of those whose first window is complete."""
        is_all = len(rows) == len(self._pending)
        every: Rows = slice(None) if is_all else rows  # a slice gives views, not copies
        pending = self._pending[every]
        frames = log_spectra(self._frames if is_all else frames_of(pending, self._params), self._params)
        new = pending[:, self._overlap :]
        ends = self._ends[every] + self._stride_samples
        self._ends[every] = ends
        self._energies[rows, ends // self._stride_samples % self._energies.shape[1]] = np.vecdot(new, new)
        self._pending[every, : self._overlap] = pending[:, self._stride_samples :]
        for row in rows.tolist():
            self._n_pending[row] = self._overlap
        posteriors = self._state.step(frames, rows)
        whole = ends >= self._card.window_samples
        if whole.all():
            return self._decide(rows, every, posteriors, ends)
        return self._decide(rows[whole], rows[whole], posteriors[whole], ends[whole]) if whole.any() else None

    def _decide(self, rows: IntArray, every: Rows, posteriors: FloatArray, ends: IntArray) -> Windows:
        """Decide about one window of each of these rows; `every` selects the same rows."""
        scores, fires = self._decision.push(every, posteriors, ends)
        decided = [
            Decided(int(rows[n]), self._card.labels[label], float(scores[n, label]), int(ends[n]), self._dbfs(rows[n]))
            for n, label in (np.argwhere(fires).tolist() if fires.any() else ())
        ]
        return Windows(rows, ends, posteriors, scores, decided)

    def _dbfs(self, row: int) -> float:
        """Root mean square of a row's last window."""
        energies = self._energies[row]
        return decibels(float(energies.sum()) / (len(energies) * self._stride_samples))
