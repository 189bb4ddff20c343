"""Keywords that are easily mistaken must score higher, so that one threshold fits all."""

import numpy as np
import pytest

from kwsd.sweep import GRID, LOGITS
from train.decide import BUDGET_PER_HOUR, choose_from
from train.streams import Heard, Said

KEYWORDS = ["clear", "confusable"]


@pytest.fixture
def heard():
    """Scores of hits lie at 4 +- 1.5 logits; false accepts thin out, the second keyword's two logits later."""
    hits = np.stack([100 / (1 + np.exp((LOGITS - 4) / 0.7))] * 2, axis=1).astype(int)
    false = np.stack([2000 * np.exp(-1.5 * (LOGITS + 2)), 2000 * np.exp(-1.5 * LOGITS)], axis=1).astype(int)
    said = [Said(n, float(i), i + 0.5) for i in range(100) for n in (0, 1)]
    return Heard(36000.0, 360000, said, hits, false, {}, [])


def test_factors_make_one_threshold_cost_the_same(heard):
    report = choose_from([heard], KEYWORDS, 3)
    decision = report["decision"]
    ratio = decision["odds_factors"]["clear"] / decision["odds_factors"]["confusable"]
    assert 0.2 < np.log(ratio) <= 1.5
    [threshold] = set(decision["thresholds"].values())
    moved = np.log([decision["odds_factors"][keyword] for keyword in KEYWORDS])
    at = np.log(threshold / (1 - threshold)) - moved
    per_hour = sum(float(np.interp(logit, LOGITS, heard.false_accepts[:, n])) / 10 for n, logit in enumerate(at))
    assert 0.5 < per_hour / BUDGET_PER_HOUR <= 1.125


def test_the_card_learns_what_each_threshold_misses(heard):
    missed = choose_from([heard], KEYWORDS, 3)["missed"]
    for keyword in KEYWORDS:
        assert len(missed[keyword]) == len(GRID)
        assert missed[keyword] == sorted(missed[keyword])
        assert missed[keyword][0] < 0.05 < 0.95 < missed[keyword][-1]
