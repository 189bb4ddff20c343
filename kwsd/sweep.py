"""Every threshold at once: what each of a grid of thresholds would have detected in a stream.

The law of this file: the detections of one threshold are those that the Spotter gives with
it. `kwsd calibrate` and training's evaluation choose thresholds by it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.card import ModelCard
from kwsd.decision import Decision

LOGITS = np.arange(-20, 101) / 10
"""Logits of the grid, from 0.12 to 0.99995 in equal steps: the ends of the scale are where
thresholds lie close together."""

GRID = 1 / (1 + np.exp(-LOGITS))

_ROW = np.zeros(1, np.int64)


def nearest(threshold: float) -> int:
    """The grid's index for a threshold."""
    logit = np.log(threshold) - np.log1p(-min(threshold, 1 - 1e-9))
    return int(np.argmin(np.abs(LOGITS - logit)))


@dataclass(frozen=True, slots=True)
class Fired:
    """A detection of one threshold: indices into the grid and the labels, and the window's end."""

    grid: int
    label: int
    end_seconds: float


class Sweep:
    """Hears one stream; give its `push` to a Spotter as `on_posteriors`.

    Attributes:
        fired: all detections so far, in order.
        n_windows: how many windows were heard.
    """

    def __init__(self, card: ModelCard) -> None:
        is_keyword = np.array([label in card.keywords for label in card.labels])
        self._n_labels = len(card.labels)
        self._decision = Decision(card, np.where(is_keyword, GRID[:, None], np.inf)[None])
        self._rate_hz = card.frontend.sample_rate_hz
        self.fired: list[Fired] = []
        self.n_windows = 0

    def push(self, posteriors: FloatArray, end: int) -> None:
        """Posteriors of the next window, shape (n_labels,), and its end on the model's sample clock."""
        _, [fires] = self._decision.push(_ROW, posteriors[None], np.array([end]))
        self.n_windows += 1
        if fires.any():
            self.fired += [Fired(int(g), int(n), end / self._rate_hz) for g, n in np.argwhere(fires)]

    def counts(self) -> NDArray[np.int64]:
        """Detections of each threshold. Shape: -> (n_grid, n_labels)."""
        counts = np.zeros((len(GRID), self._n_labels), np.int64)
        for one in self.fired:
            counts[one.grid, one.label] += 1
        return counts
