"""The sweep: what each threshold of a grid would have detected in a stream.

Law: the detections at one threshold are exactly those that the Spotter gives with it.
`kwsd calibrate` and training's evaluation use the sweep to choose thresholds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kwsd.core.card import ModelCard
from kwsd.core.decision import Decision
from kwsd.core.stream_batch import Windows

LOGITS = np.arange(-20, 101) / 10
"""The grid as logits: from 0.12 to 0.99995. Equal steps here are small steps near 1, where thresholds lie.

It is part of the model card: `results["missed"]` has one number for each. A change needs a new format.
"""

GRID = 1 / (1 + np.exp(-LOGITS))

_ROW = np.zeros(1, np.int64)


def nearest(threshold: float) -> int:
    """Index of the grid's nearest threshold."""
    logit = np.log(threshold) - np.log1p(-min(threshold, 1 - 1e-9))
    return int(np.argmin(np.abs(LOGITS - logit)))


@dataclass(frozen=True, slots=True)
class Fired:
    """A detection at one threshold: index into the grid, index into the labels, end of the window."""

    grid: int
    label: int
    end_seconds: float


class Sweep:
    """Decides about one stream with every threshold of the grid, and counts. Feed it with `Spotter.process`.

    Attributes:
        counts: number of detections at each threshold, shape (n_grid, n_labels).
        n_windows: number of windows.
    """

    def __init__(self, card: ModelCard) -> None:
        is_keyword = np.array([label in card.keywords for label in card.labels])
        thresholds = np.where(is_keyword, GRID[:, None], np.inf)
        self._decision = Decision(card, thresholds[None])
        self._rate_hz = card.frontend.sample_rate_hz
        self.counts = np.zeros(thresholds.shape, np.int64)
        self.n_windows = 0

    def push(self, windows: Iterable[Windows]) -> None:
        """Decide about the next windows of the stream."""
        for one in windows:
            _, [fires] = self._decision.push(_ROW, one.posteriors, one.ends)
            self.n_windows += 1
            if fires.any():
                self.counts += fires
                self._keep(fires, one.ends.item() / self._rate_hz)

    def reset(self) -> None:
        """Start a new stream: forget smoothing, arming and refractory period. The counts stay."""
        self._decision.reset(0)

    def _keep(self, fires: NDArray[np.bool_], seconds: float) -> None:
        """Take what fired in a window. Shape: (n_grid, n_labels)."""


class TimedSweep(Sweep):
    """A sweep that also knows when. Hours of audio take much memory.

    Attributes:
        fired: all detections, in the order of time.
    """

    def __init__(self, card: ModelCard) -> None:
        super().__init__(card)
        self.fired: list[Fired] = []

    def _keep(self, fires: NDArray[np.bool_], seconds: float) -> None:
        self.fired += [Fired(int(g), int(n), seconds) for g, n in np.argwhere(fires)]
