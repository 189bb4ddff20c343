"""The batcher: streams side by side, a row for each, advanced by one run.

The law of this file: a stream's row is all that it remembers after the resampler, and no row
touches another: what a stream is told depends neither on what else is heard, nor on how its
samples were cut. Whoever is due is in the next run; nobody waits for the others here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray, decibels
from kwsd.card import ModelCard
from kwsd.decision import Decision
from kwsd.frontend import frames_of, log_spectra
from kwsd.memory import IntArray, Memory, Rows, more_rows

OnPosteriors = Callable[[FloatArray, int], object]
OnScores = Callable[[IntArray, FloatArray, IntArray], object]


@dataclass(frozen=True, slots=True)
class Decided:
    """A keyword that a row's stream said in the window that ends at `end` on the model's sample clock."""

    row: int
    label: str
    score: float
    end: int
    loudness_dbfs: float


class Remembers(Protocol):
    """What a batcher needs of a model."""

    card: ModelCard

    def remember(self, n_rows: int) -> Memory:
        """Memory for so many streams."""
        ...


class Batcher:
    """Rows for the streams of one model.

    Attributes:
        on_scores: called with rows, shape (n,), the scores of a window of each, shape
            (n, n_labels), and the windows' ends on the model's sample clock, shape (n,).
    """

    on_scores: OnScores | None = None

    def __init__(self, model: Remembers) -> None:
        n_rows, card = 1, model.card
        self._card, self._params = card, card.frontend
        self._stride_samples = card.stride_frames * self._params.hop_samples
        self._overlap = max(0, self._params.frame_samples - self._params.hop_samples)
        self._keep_pending(np.zeros((n_rows, self._overlap + self._stride_samples), np.float32))
        self._n_pending = [0] * n_rows
        self._ends = np.zeros(n_rows, np.int64)  # sample clocks of what was heard in whole strides
        self._memory = model.remember(n_rows)
        self._energies = np.zeros((n_rows, -(-card.window_samples // self._stride_samples)), np.float32)
        self._decision = Decision(card, np.full((n_rows, len(card.labels)), np.inf))
        self._listeners: dict[int, OnPosteriors] = {}
        self._free = [0]

    def join(self, thresholds: NDArray[np.float64], on_posteriors: OnPosteriors | None = None) -> int:
        """A row for a stream that begins, from `kwsd.decision.chosen_thresholds`.

        Args:
            on_posteriors: called with the posteriors of each window, shape (n_labels,), and
                the window's end on the model's sample clock, before it is decided.
        """
        if not self._free:
            self._double()
        row = self._free.pop()
        self.change(row, thresholds)
        if on_posteriors:
            self._listeners[row] = on_posteriors
        self.begin(row)
        return row

    def _keep_pending(self, pending: FloatArray) -> None:
        self._pending, self._frames = pending, frames_of(pending, self._params)

    def _double(self) -> None:
        n_rows = len(self._pending)
        self._keep_pending(more_rows(self._pending, n_rows))
        self._energies = more_rows(self._energies, n_rows)
        self._n_pending += [0] * n_rows
        self._ends = more_rows(self._ends, n_rows)
        self._memory.add_rows(n_rows)
        self._decision.add_rows(n_rows)
        self._free = list(range(2 * n_rows - 1, n_rows - 1, -1))

    def change(self, row: int, thresholds: NDArray[np.float64]) -> None:
        """Other thresholds for a row; its stream goes on."""
        self._decision.change(row, thresholds)

    def leave(self, row: int) -> None:
        """The row is free for another stream."""
        self._listeners.pop(row, None)
        self._n_pending[row] = 0
        self._free.append(row)

    def begin(self, row: int) -> None:
        """Forget what the row's stream has said; its sample clock is at 0 again.

        Windows end a whole number of strides after the first one, so a few frames of nothing
        go before the stream. The first window does not hold them.
        """
        n_lead = -self._card.window_frames % self._card.stride_frames * self._params.hop_samples
        self._pending[row] = 0
        self._n_pending[row] = n_lead
        self._ends[row] = self._overlap - n_lead
        self._memory.forget(row)
        self._decision.begin(row)

    def hear(self, chunks: dict[int, FloatArray]) -> Iterator[Decided]:
        """Hear more of some streams.

        Args:
            chunks: for each row the next samples at the model's rate, shape (any,).
        """
        width = self._pending.shape[1]
        while chunks:
            rests = {row: self._keep(row, samples) for row, samples in chunks.items()}
            if due := sorted(row for row in rests if self._n_pending[row] == width):
                yield from self._advance(np.array(due))
            chunks = {row: rest for row, rest in rests.items() if len(rest)}

    def _keep(self, row: int, samples: FloatArray) -> FloatArray:
        """Keep samples until a stride is whole; returns those that must wait for the next."""
        n_pending = self._n_pending[row]
        taken = samples[: self._pending.shape[1] - n_pending]
        self._pending[row, n_pending : n_pending + len(taken)] = taken
        self._n_pending[row] += len(taken)
        return samples[len(taken) :]

    def _advance(self, rows: IntArray) -> Iterator[Decided]:
        """A stride of each of these rows."""
        is_all = len(rows) == len(self._pending)
        every: Rows = slice(None) if is_all else rows  # views instead of copies
        pending = self._pending[every]
        frames = log_spectra(self._frames if is_all else frames_of(pending, self._params), self._params)
        news = pending[:, self._overlap :]
        ends = self._ends[every] + self._stride_samples
        self._ends[every] = ends
        self._energies[rows, ends // self._stride_samples % self._energies.shape[1]] = np.vecdot(news, news)
        self._pending[every, : self._overlap] = pending[:, self._stride_samples :]
        for row in rows.tolist():
            self._n_pending[row] = self._overlap
        posteriors = self._memory.step(frames, rows)
        whole = ends >= self._card.window_samples
        if whole.all():
            yield from self._decide(rows, every, posteriors, ends)
        elif whole.any():
            yield from self._decide(rows[whole], rows[whole], posteriors[whole], ends[whole])

    def _decide(self, rows: IntArray, every: Rows, posteriors: FloatArray, ends: IntArray) -> Iterator[Decided]:
        """A window of each of these rows; `every` means the same ones."""
        if self._listeners:
            for row, of_row, end in zip(rows.tolist(), posteriors, ends.tolist(), strict=True):
                if row in self._listeners:
                    self._listeners[row](of_row, end)
        scores, fires = self._decision.push(every, posteriors, ends)
        if self.on_scores:
            self.on_scores(rows, scores, ends)
        if not fires.any():
            return
        for n, label in np.argwhere(fires).tolist():
            row = int(rows[n])
            loudness = decibels(float(self._energies[row].sum()) / (self._energies.shape[1] * self._stride_samples))
            yield Decided(row, self._card.labels[label], float(scores[n, label]), int(ends[n]), loudness)
