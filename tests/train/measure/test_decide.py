"""Easily confused keywords get a higher threshold, and all keywords together meet the budget."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.core.sweep import GRID, LOGITS, nearest
from train.measure.decide import BUDGET_PER_HOUR, choose_from
from train.measure.streams import Measured, Said
from train.measure.subject import undecided

KEYWORDS = ["clear", "confusable"]
UNDECIDED = undecided(KEYWORDS)
HOURS = 10


def stream(false_accepts):
    """Scores of hits lie at 4 +- 1.5 logits."""
    hits = np.stack([100 / (1 + np.exp((LOGITS - 4) / 0.7))] * 2, axis=1).astype(int)
    said = [Said(n, float(i), i + 0.5) for i in range(100) for n in (0, 1)]
    seconds = 3600.0 * HOURS
    return Measured(seconds, seconds, 36000 * HOURS, said, hits, np.zeros_like(hits), false_accepts, {}, [])


@pytest.fixture
def measured():
    """False accepts become rarer at higher thresholds; the second keyword's lie two logits higher."""
    return stream(np.stack([2000 * np.exp(-1.5 * (LOGITS + 2)), 2000 * np.exp(-1.5 * LOGITS)], axis=1).astype(int))


def test_an_easily_confused_keyword_gets_a_higher_threshold(measured):
    thresholds = choose_from([measured], UNDECIDED)["decision"]["thresholds"]
    clear, confusable = (np.log(value / (1 - value)) for value in thresholds.values())
    assert 0.2 < confusable - clear <= 1.5
    per_hour = sum(measured.false_accepts[nearest(value), n] for n, value in enumerate(thresholds.values())) / HOURS
    assert 0.5 < per_hour / BUDGET_PER_HOUR <= 1


def test_the_rest_of_the_decision_stays(measured):
    other = replace(UNDECIDED, smoothing_windows=5, refractory_seconds=2.5)
    decision = choose_from([measured], other)["decision"]
    assert (decision["smoothing_windows"], decision["refractory_seconds"]) == (5, 2.5)


def test_rates_of_several_streams_are_pooled(measured):
    silent = stream(np.zeros_like(measured.false_accepts))
    alone, pooled = (
        choose_from(results, UNDECIDED)["decision"]["thresholds"]["clear"]
        for results in ([measured], [measured, silent])
    )
    assert 0 < np.log(alone / (1 - alone)) - np.log(pooled / (1 - pooled)) <= 0.9  # half the rate: about ln 2 / 1.5


def test_a_budget_that_is_always_or_never_met_gives_an_end_of_the_grid(measured):
    for rate, grid in ((0, GRID[0]), (10000, GRID[-1])):
        report = choose_from([stream(np.full_like(measured.false_accepts, rate))], UNDECIDED)
        assert set(report["decision"]["thresholds"].values()) == {round(grid, 5)}


def test_the_report_has_the_share_that_each_threshold_misses(measured):
    missed = choose_from([measured], UNDECIDED)["missed"]
    for keyword in KEYWORDS:
        assert len(missed[keyword]) == len(GRID)
        assert missed[keyword] == sorted(missed[keyword])
        assert missed[keyword][0] < 0.05 < 0.95 < missed[keyword][-1]
