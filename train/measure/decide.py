"""Chooses the decision of a run on validation streams: the card's thresholds.

Law: each keyword has its own threshold, because some are confused more easily than others. Together
the thresholds maximise hits minus a price for each false accept; the price is the same for all
keywords, and the lowest that keeps the budget. Substitutions do not count. Each threshold then moves
only half of the way from the median to this optimum, because a single keyword has few false accepts.
Scores stay posteriors: shifting scores in place of thresholds was tried, and missed more on other
streams at one threshold for all keywords.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kwsd.core.card import DecisionParams
from kwsd.core.sweep import GRID
from train.files import write_json
from train.measure.streams import Measured, measure, streams_of
from train.measure.subject import KerasModel, posteriors
from train.recordings.features import Examples
from train.recordings.material import Material

HOURS = 5.0
_SEED = 1
BUDGET_PER_HOUR = 1.0
"""False accepts in an hour of the validation streams outside keywords; `kwsd calibrate` finds the thresholds for any
other budget, from recordings of the user's room."""

_SMOOTH = 5


def choose(subject: KerasModel, clips: Examples, material: Material, run: Path) -> None:
    """Choose and write `RUN/decision.json`.

    Args:
        subject: a run's model without a decision.
        clips, material: of the validation split.
    """
    streams = streams_of(material, HOURS, _SEED).by_name
    print(f"choosing thresholds on {HOURS:g} hours of {' and of '.join(streams)}; this takes minutes", flush=True)
    results = [measure(subject, stream, f"choosing on {name}") for name, stream in streams.items()]
    report = choose_from(results, subject.card.decision)
    report["unknown_odds"] = unknown_odds(subject, clips)
    report |= {"seed": _SEED, "hours": HOURS * len(results), "streams": list(streams)}
    write_json(run / "decision.json", report)


def choose_from(results: list[Measured], undecided: DecisionParams) -> dict[str, Any]:
    """Choose from the results of each threshold of the grid in some streams.

    Args:
        undecided: the decision with other thresholds.

    Returns:
        "decision" for the card, and "missed": for each keyword the share of its utterances
        that each threshold of the grid misses.
    """
    hours = sum(measured.free_seconds for measured in results) / 3600
    hits = np.mean([measured.hits / np.maximum(1, measured.n_said) for measured in results], axis=0)
    false = np.sum([measured.false_accepts for measured in results], axis=0) / hours
    best = _balanced(_smoothed(hits), _smoothed(false))
    offsets = np.round((best - np.median(best)) / 2).astype(int)  # in steps of the grid
    candidates = np.clip(np.arange(len(GRID))[:, None] + offsets, 0, len(GRID) - 1)  # (n_grid, n_keywords)
    per_hour = np.take_along_axis(false, candidates, axis=0).sum(axis=1)
    exceeded = np.flatnonzero(per_hour > BUDGET_PER_HOUR)
    chosen = candidates[min(exceeded[-1] + 1, len(GRID) - 1) if len(exceeded) else 0]
    keywords = list(undecided.thresholds)
    thresholds = {keyword: round(float(GRID[at]), 5) for keyword, at in zip(keywords, chosen, strict=True)}
    return {
        "decision": asdict(replace(undecided, thresholds=thresholds)),
        "missed": {keyword: (1 - hits[:, n]).round(3).tolist() for n, keyword in enumerate(keywords)},
    }


def unknown_odds(subject: KerasModel, clips: Examples) -> float:
    """The factor for the odds of unknown that labels most clips correctly."""
    of_clips = posteriors(subject, clips.x)
    n_right = {}
    for factor in np.exp(-np.arange(0, 4.1, 0.25)):
        card = replace(subject.card, unknown_odds=float(factor))
        n_right[float(factor)] = np.sum(np.argmax(card.with_unknown_odds(of_clips), axis=1) == clips.y)
    return round(max(n_right, key=lambda factor: n_right[factor]), 4)


def _balanced(hits: NDArray[np.float64], false: NDArray[np.float64]) -> NDArray[np.int64]:
    """For each keyword the threshold at which a false accept gains as much as for any other keyword.

    It maximises all hits minus a price for each false accept (H. Everett, 1963). The price is the
    lowest that keeps the budget. Shape: (n_grid, n_keywords) -> (n_keywords,), indices into the grid.
    """
    for price in np.geomspace(1e-4, 10, 200):
        at = np.argmax(hits - price * false, axis=0)
        if false[at, np.arange(len(at))].sum() <= BUDGET_PER_HOUR:
            break
    chosen: NDArray[np.int64] = at
    return chosen


def _smoothed(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moving average over the grid, so that no single event decides."""
    padded = np.pad(curves, ((_SMOOTH // 2, _SMOOTH // 2), (0, 0)), "edge")
    return np.stack([padded[i : i + len(curves)] for i in range(_SMOOTH)]).mean(axis=0)
