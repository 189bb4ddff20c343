"""The decision: posteriors of consecutive windows become detected keywords.

Law: time is the sample clock, so a recording replayed faster than real time gives the same
detections. One utterance fires once: a label that fired must fall below its threshold before it can
fire again, and its refractory period must have passed.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.core.card import ModelCard
from kwsd.core.rows import IntArray, Rows, more_rows


def thresholds_of(card: ModelCard, changes: Mapping[str, float] | None = None) -> NDArray[np.float64]:
    """The card's thresholds, with those of some keywords replaced.

    Returns:
        shape (n_labels,). Silence and unknown have infinity: a score never exceeds 1, so they never fire.
    """
    chosen = {**card.decision.thresholds, **(changes or {})}
    return np.array([chosen.get(label, np.inf) for label in card.labels])


class Decision:
    """Smoothing, threshold, re-arming and refractory period, one row for each stream.

    Args:
        card: for smoothing and refractory period.
        thresholds: shape (n_rows, ..., n_labels). The axes in between are alternative decisions
            about the same stream, each with its own thresholds.
    """

    def __init__(self, card: ModelCard, thresholds: NDArray[np.float64]) -> None:
        n_rows, n_labels = len(thresholds), thresholds.shape[-1]
        self._thresholds = thresholds
        self._refractory_samples = round(card.decision.refractory_seconds * card.frontend.sample_rate_hz)
        self._recent = np.zeros((n_rows, card.decision.smoothing_windows, n_labels), np.float32)
        self._n_recent = np.zeros((n_rows, 1), np.float32)
        self._disarmed = np.zeros(thresholds.shape, bool)
        self._quiet_until = np.zeros(thresholds.shape, np.int64)
        self._between = (-1, *[1] * (thresholds.ndim - 2))

    def push(self, rows: Rows, posteriors: FloatArray, ends: IntArray) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Decide about one window of each of some streams.

        The score is the mean posterior of the last windows; at the start of a stream there are fewer.

        Args:
            rows: the rows of n streams, each at most once.
            posteriors: shape (n, n_labels), float32.
            ends: shape (n,), sample clock of the windows' ends, at the model's rate.

        Returns:
            scores, shape (n, n_labels), and which labels fire, shape (n, ..., n_labels).
        """
        recent = np.concatenate([self._recent[rows, 1:], posteriors[:, None]], axis=1)
        n_recent = np.minimum(self._n_recent[rows] + 1, recent.shape[1])
        self._recent[rows], self._n_recent[rows] = recent, n_recent
        scores: FloatArray = recent.sum(axis=1) / n_recent
        above = scores.reshape(*self._between, scores.shape[-1]) >= self._thresholds[rows]
        if not above.any():
            self._disarmed[rows] = False
            return scores, above
        ends = ends.reshape(*self._between, 1)
        fires: NDArray[np.bool_] = above & ~self._disarmed[rows] & (ends >= self._quiet_until[rows])
        self._disarmed[rows] = above & (self._disarmed[rows] | fires)
        if fires.any():
            self._quiet_until[rows] = np.where(fires, ends + self._refractory_samples, self._quiet_until[rows])
        return scores, fires

    def add_rows(self, n: int) -> None:
        """Make room for `n` more streams."""
        self._thresholds, self._recent, self._n_recent, self._disarmed, self._quiet_until = (
            more_rows(values, n)  # a new row has thresholds of 0 until `set_thresholds`
            for values in (self._thresholds, self._recent, self._n_recent, self._disarmed, self._quiet_until)
        )

    def set_thresholds(self, row: int, thresholds: NDArray[np.float64]) -> None:
        """Replace a row's thresholds, shape (..., n_labels). Its stream goes on."""
        self._thresholds[row] = thresholds

    def reset(self, row: int) -> None:
        """Start a new stream in a row. Its thresholds stay."""
        for values in (self._recent, self._n_recent, self._disarmed, self._quiet_until):
            values[row] = 0
