"""The decision of a run, chosen on validation streams: what the card says about scores.

The law of this file: one threshold for all keywords. Thresholds that cost the same for every
keyword, as a factor for each keyword's odds, were tried: a keyword has too few false accepts
to learn it from, and other streams missed more.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kwsd.sweep import GRID
from train.data import Corpus
from train.features import Examples, held_out_examples
from train.material import Material
from train.streams import Heard, hear, scenes, stream_seed, streams_of
from train.subject import KerasModel

HOURS = 2.0
_SEED = 1
BUDGET_PER_HOUR = 10.0
"""Where somebody speaks all the time, as in these streams: a home with an hour of talk a day has so
many a day. At a tenth of it twice as many keywords are missed; `kwsd calibrate` finds the thresholds
of any other budget."""


def choose(subject: KerasModel, corpus: Corpus, material: Material, run: Path) -> dict[str, Any]:
    """Choose and write `RUN/decision.json`.

    Args:
        subject: a run's model for which nothing was chosen yet.
        material: of the validation split.
    """
    heards = [
        hear(subject, scenes(material, style, HOURS, stream_seed(_SEED, name)), f"choosing on {name}")
        for name, style in streams_of(material).items()
    ]
    report = choose_from(heards, subject.card.keywords, subject.card.decision.smoothing_windows)
    report["unknown_odds"] = unknown_odds(subject, held_out_examples(corpus, "validation", subject.card.frontend))
    report |= {"seed": _SEED, "hours": HOURS * len(heards), "streams": list(streams_of(material))}
    part = run / "part-decision.json"
    part.write_text(json.dumps(report) + "\n")
    part.replace(run / "decision.json")
    return report


def choose_from(heards: list[Heard], keywords: list[str], smoothing_windows: int) -> dict[str, Any]:
    """The lowest threshold, one for all keywords, from which the budget is never exceeded.

    Returns:
        "decision" for the card, and "missed": for each keyword the share of its utterances
        that each threshold of the grid misses.
    """
    hours = sum(heard.seconds for heard in heards) / 3600
    hits = np.mean([heard.hits / np.maximum(1, heard.n_said) for heard in heards], axis=0)
    per_hour = np.sum([heard.false_accepts.sum(axis=1) for heard in heards], axis=0) / hours
    exceeded = np.flatnonzero(per_hour > BUDGET_PER_HOUR)
    at = min(exceeded[-1] + 1, len(GRID) - 1) if len(exceeded) else 0
    return {
        "decision": {
            "smoothing_windows": smoothing_windows,
            "refractory_seconds": 1.0,
            "thresholds": dict.fromkeys(keywords, round(float(GRID[at]), 5)),
        },
        "missed": {keyword: (1 - hits[:, n]).round(3).tolist() for n, keyword in enumerate(keywords)},
    }


def unknown_odds(subject: KerasModel, clips: Examples) -> float:
    """The factor for the odds of unknown with which most clips are labelled right."""
    posteriors = subject.posteriors(clips.x)
    n_right = {}
    for factor in np.exp(-np.arange(0, 4.1, 0.25)):
        card = replace(subject.card, unknown_odds=float(factor))
        n_right[float(factor)] = np.sum(np.argmax(card.clip_posteriors(posteriors), axis=1) == clips.y)
    return round(max(n_right, key=lambda factor: n_right[factor]), 4)
