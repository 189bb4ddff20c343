"""Calibration: thresholds for a budget of false accepts, from counts of a sweep.

Law: the audio held no keyword, so every detection in it is a false accept. All thresholds move by
the same step on the logit scale, because an hour or two of audio can determine one number but not ten.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kwsd.core.card import ModelCard
from kwsd.core.sweep import GRID, nearest

_ENOUGH = 10  # events that can be counted as a rate; with fewer, the rate is extrapolated
_TAIL = 40
_SHOWS_NONE = 3.0  # 3 / r hours without an event show at 95 % that the rate is at most r

Basis = Literal["counted", "extrapolated", "kept"]
"""Where the thresholds come from: counted events; how the few events thin out; or the model's own."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword with its threshold.

    Attributes:
        n_false: number of false accepts in the recordings at this threshold.
        missed: share of utterances that the threshold misses in the validation stream of the
            model's card; None if the card does not say.
    """

    label: str
    threshold: float
    n_false: int
    missed: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds for a budget, and what they are based on.

    Attributes:
        keywords: in the model's order.
        per_hour: the budget.
        hours: of recordings.
        basis: where the thresholds come from.
    """

    keywords: list[Keyword]
    per_hour: float
    hours: float
    basis: Basis

    @property
    def thresholds(self) -> dict[str, float]:
        return {one.label: one.threshold for one in self.keywords}

    @property
    def missed(self) -> float | None:
        """Share of keywords that validation missed at these thresholds, the mean of all; None if not known."""
        known = [one.missed for one in self.keywords if one.missed is not None]
        return sum(known) / len(known) if known else None

    @property
    def needed_hours(self) -> float:
        """Hours of recordings that can show the budget at 95 %."""
        return _SHOWS_NONE / self.per_hour


def choose_thresholds(card: ModelCard, counts: NDArray[np.int64], hours: float, per_hour: float) -> Calibration:
    """Choose thresholds for a budget.

    Args:
        counts: from a `Sweep`, shape (n_grid, n_labels).
        hours: of audio that was decided about.
        per_hour: allowed false accepts an hour, all keywords together.
    """
    indices, own = _indices(card), _own(card)
    steps, n_false = _by_step(counts[:, indices], own)
    step, basis = _choose(steps, n_false, per_hour, hours)
    chosen = np.clip(own + step, 0, len(GRID) - 1)
    missed = _missed(card)
    on_grid = [round(float(GRID[at]), 7) for at in chosen]
    kept = [card.decision.thresholds[label] for label in card.keywords]  # may lie between two of the grid
    keywords = [
        Keyword(label, threshold, int(counts[at, index]), missed[label][at] if label in missed else None)
        for label, threshold, at, index in zip(card.keywords, on_grid if step else kept, chosen, indices, strict=True)
    ]
    return Calibration(keywords, per_hour, hours=hours, basis=basis)


def trade_off(card: ModelCard, counts: NDArray[np.int64], hours: float) -> list[tuple[float, float]]:
    """What each step would give: false accepts an hour here, and the share of keywords that validation missed.

    Empty if the card does not say what validation missed.
    """
    missed, own = _missed(card), _own(card)
    if not all(label in missed for label in card.keywords):
        return []
    steps, n_false = _by_step(counts[:, _indices(card)], own)
    at = np.clip(own + steps[:, None], 0, len(GRID) - 1)
    shares = [float(np.mean([missed[label][n] for label, n in zip(card.keywords, row, strict=True)])) for row in at]
    return [(n / hours, share) for n, share in zip(n_false.tolist(), shares, strict=True)]


def _missed(card: ModelCard) -> dict[str, list[float]]:
    """For each keyword the share that validation missed at each threshold of the grid, as far as the card says it."""
    missed = card.results.get("missed")
    known = missed.items() if isinstance(missed, dict) else ()
    return {label: shares for label, shares in known if isinstance(shares, list) and len(shares) == len(GRID)}


def _indices(card: ModelCard) -> list[int]:
    """The keywords' columns among the labels."""
    return [card.labels.index(label) for label in card.keywords]


def _own(card: ModelCard) -> NDArray[np.int64]:
    """The grid's index of each keyword's own threshold."""
    return np.array([nearest(card.decision.thresholds[label]) for label in card.keywords])


def _by_step(counts: NDArray[np.int64], own: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """False accepts of all keywords when all thresholds move by the same number of steps on the grid.

    Shape: counts (n_grid, n_keywords), own (n_keywords,) -> steps and false accepts, both (n_steps,).
    """
    steps = np.arange(-int(own.min()), len(GRID) - int(own.min()))
    at = np.clip(own + steps[:, None], 0, len(GRID) - 1)
    n_false = counts[at, np.arange(len(own))].sum(axis=1)
    # A higher threshold can count one more, when a long event falls apart; a rate must not rise.
    return steps, np.maximum.accumulate(n_false[::-1])[::-1]


def _choose(steps: NDArray[np.int64], n_false: NDArray[np.int64], per_hour: float, hours: float) -> tuple[int, Basis]:
    """The step by which all thresholds move.

    If the budget allows enough events to count, it is the first step within the budget. Otherwise
    the rate is extrapolated: high scores thin out exponentially on the logit scale, so a rate of few
    events keeps falling by the same factor for each step (peaks over threshold, J. Pickands, 1975).
    Thresholds are lowered only where more events than the budget were counted just below, because
    recordings without speech say nothing about a room in which someone speaks.
    """
    budget = per_hour * hours
    if n_false[0] <= budget:
        return 0, "kept"
    if budget >= _ENOUGH:
        above = np.flatnonzero(n_false <= budget)
        return int(steps[above[0] if len(above) else -1]), "counted"
    if n_false[-1] > _TAIL:
        return int(steps[-1]), "counted"
    few = int(np.argmax(n_false <= _TAIL))
    if n_false[few] == 0:  # no events at all, or none above the counted ones
        return (int(steps[few]), "counted") if steps[few] > 0 else (0, "kept")
    mean_excess = n_false[few + 1 :].sum() / n_false[few]  # in whole steps, so geometric
    excess = np.log(max(1.0, n_false[few] / budget)) / np.log1p(1 / max(mean_excess, 0.1))
    step = int(steps[few] + np.ceil(excess))
    return (step, "extrapolated") if step > 0 else (0, "kept")
