"""The decision: posteriors of consecutive windows become detected keywords.

The law of this file: time is the sample clock, so a recording decided faster than real time
decides the same. One utterance fires once: a label that fired must fall below its threshold
before it can fire again, and its refractory period must have passed.
"""

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.card import ModelCard


@dataclass(frozen=True, slots=True)
class Decided:
    """A keyword that was heard in the window that ends at `end` on the sample clock."""

    label: str
    score: float
    end: int


class Trigger:
    """Smoothing, threshold, re-arming and refractory period of one stream, as arrays.

    Args:
        card: smoothing and refractory period.
        thresholds: shape (..., n_labels). Leading axes are decisions side by side, each with
            its own thresholds, that all hear the same stream.
    """

    def __init__(self, card: ModelCard, thresholds: NDArray[np.float64]) -> None:
        self._thresholds = thresholds
        self._refractory_samples = round(card.decision.refractory_seconds * card.frontend.sample_rate_hz)
        self._recent: deque[FloatArray] = deque(maxlen=card.decision.smoothing_windows)
        self._armed: NDArray[np.bool_] = np.ones(thresholds.shape, bool)
        self._quiet_until = np.zeros(thresholds.shape, np.int64)

    @property
    def n_labels(self) -> int:
        return int(self._thresholds.shape[-1])

    def push(self, posteriors: FloatArray, end: int) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Decide about one window.

        The score is the mean over the last windows, fewer at the start of a stream.

        Args:
            posteriors: shape (n_labels,), float32.
            end: sample clock of the window's end, at the model's rate.

        Returns:
            scores, shape (n_labels,), and which fire, shape of the thresholds.
        """
        self._recent.append(posteriors)
        scores: FloatArray = np.mean(self._recent, axis=0)
        above = scores >= self._thresholds
        fires = above & self._armed & (end >= self._quiet_until)
        self._armed = ~above | (self._armed & ~fires)
        self._quiet_until[fires] = end + self._refractory_samples
        return scores, fires

    def reset(self) -> None:
        self._recent.clear()
        self._armed[:] = True
        self._quiet_until[:] = 0


class Decision:
    """The decision of one stream.

    Args:
        card: labels, smoothing, refractory period and thresholds.
        threshold: one threshold for all labels, in place of the card's.
        thresholds: thresholds of single labels, in place of the card's.
    """

    def __init__(
        self, card: ModelCard, threshold: float | None = None, thresholds: dict[str, float] | None = None
    ) -> None:
        chosen = dict(card.decision.thresholds)
        if threshold is not None:
            chosen = dict.fromkeys(chosen, threshold)
        chosen |= thresholds or {}
        self._labels = card.labels
        # A score never exceeds 1, so a label without a threshold (silence, unknown) never fires.
        self._trigger = Trigger(card, np.array([chosen.get(label, np.inf) for label in card.labels]))

    def push(self, posteriors: FloatArray, end: int) -> list[Decided]:
        """Decide about one window; as `Trigger.push`."""
        scores, fires = self._trigger.push(posteriors, end)
        return [Decided(self._labels[i], float(scores[i]), end) for i in np.flatnonzero(fires)]

    def reset(self) -> None:
        self._trigger.reset()
