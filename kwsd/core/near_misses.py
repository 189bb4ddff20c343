"""Near misses: scores that come close to a threshold and fall again, without a detection.

They show what a lower threshold would have detected, and are material to learn from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray

_CLOSE_LOGITS = 2.0
"""A threshold of 0.97 has near misses from 0.81 on."""


@dataclass(frozen=True, slots=True)
class Near:
    """The highest score of a near miss: index into the labels, and the end of its window on the sample clock."""

    label: int
    score: float
    threshold: float
    end: int


class NearMisses:
    """Finds the near misses of one stream.

    Args:
        thresholds: from `thresholds_of`, shape (n_labels,).
        stride_samples: between the ends of two windows.
    """

    def __init__(self, thresholds: NDArray[np.float64], stride_samples: int) -> None:
        self._stride_samples = stride_samples
        self._next_end = -1
        self._peaks = np.zeros(len(thresholds))
        self._ends = np.zeros(len(thresholds), np.int64)
        self._settled = np.zeros(len(thresholds), bool)  # detected, or began in a skipped window
        self.set_thresholds(thresholds)

    def set_thresholds(self, thresholds: NDArray[np.float64]) -> None:
        """Replace the thresholds. The stream goes on."""
        self._thresholds = thresholds
        below_one = np.minimum(thresholds, 1 - 1e-9)  # infinity, of labels that never fire, is left out below
        self._close = np.where(thresholds <= 1, 1 / (1 + (1 / below_one - 1) * np.exp(_CLOSE_LOGITS)), np.inf)

    def push(self, scores: FloatArray, end: int, fired: list[int]) -> list[Near]:
        """Look at one window. After skipped windows, a label that is close does not count until it has fallen once.

        Args:
            scores: shape (n_labels,).
            end: of the window, on the sample clock.
            fired: indices of the labels that were detected in it.

        Returns:
            the near misses that ended with this window; usually none.
        """
        close = scores >= self._close
        if end != self._next_end:
            self._peaks[:], self._settled = 0, close.copy()
        self._next_end = end + self._stride_samples
        self._settled[fired] = True
        higher = close & (scores > self._peaks)
        self._peaks[higher], self._ends[higher] = scores[higher], end
        over = ~close & (self._peaks > 0)
        if not over.any():
            return []
        is_near = (
            over & ~self._settled & (self._peaks < self._thresholds)
        )  # a higher peak without a detection was in the refractory period
        missed = [
            Near(n, float(self._peaks[n]), float(self._thresholds[n]), int(self._ends[n]))
            for n in np.flatnonzero(is_near).tolist()
        ]
        self._peaks[over], self._settled[over] = 0, False
        return missed
