"""Judges a branch: smoothed scores, as the daemon's decision has them, false events, and the threshold."""

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.card import ModelCard
from kwsd.learn.branch import scores_of, scores_of_part
from kwsd.learn.graft import N_SPANS, SPAN_STEPS, STEP_FRAMES, Branch
from kwsd.learn.pack import Pack

_LOWEST, _HIGHEST = 0.5, 0.9999  # thresholds


class Judge:
    """Judges branches on the measuring half of a pack.

    Attributes:
        hours: how long that half lasts.
    """

    def __init__(self, card: ModelCard, pack: Pack) -> None:
        span_seconds = SPAN_STEPS * STEP_FRAMES * card.frontend.hop_samples / card.frontend.sample_rate_hz
        decision = card.decision
        self._pack = pack
        self._n_smoothed = max(1, round(decision.smoothing_windows * card.stride_seconds / span_seconds))
        self._n_refractory = max(1, round(decision.refractory_seconds / span_seconds))
        self.hours = len(pack.measuring) * span_seconds / 3600

    def highest(self, branch: Branch, windows: FloatArray) -> float:
        """The highest smoothed score in windows that follow each other."""
        return float(self._smoothed(scores_of(branch, windows)).max(initial=0.0))

    def events(self, branch: Branch, kind: int) -> list[tuple[float, str]]:
        """The maxima in the measuring half that are a refractory period apart, the highest first, and what was said.

        Args:
            kind: the word itself, which does not count, or a number that no span has.
        """
        scores = self._smoothed(scores_of_part(branch, self._pack.measuring))
        n_spans = N_SPANS - 1 + self._n_smoothed
        kinds = self._pack.measuring.kinds[n_spans - 1 :]
        for place in np.flatnonzero(self._pack.measuring.kinds == kind):
            first, last = place - n_spans + 1, place  # of the windows with this span
            scores[max(0, first - 2) : last + 2] = 0  # and of those beside them, which may have some of the word
        events, is_free = [], np.ones(len(scores), bool)
        for at in np.argsort(-scores):
            if scores[at] < _LOWEST / 2:
                break
            if is_free[at]:
                events.append((float(scores[at]), self._pack.names[kinds[at]]))
                is_free[max(0, at - self._n_refractory) : at + self._n_refractory] = False
        return events

    def threshold(self, events: list[tuple[float, str]], per_hour: float) -> float:
        """The lowest threshold within the budget, from the events of the measuring half, or the highest there is."""
        allowed = int(per_hour * self.hours)
        first_refused = events[allowed][0] if len(events) > allowed else 0.0
        return float(np.clip(first_refused + 1e-4, _LOWEST, _HIGHEST))

    def _smoothed(self, logits: FloatArray) -> FloatArray:
        posteriors = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
        mean = np.full(self._n_smoothed, 1 / self._n_smoothed)
        return np.convolve(posteriors, mean, "valid").astype(np.float32)
