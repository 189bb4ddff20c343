"""Near misses of hand-made scores."""

import numpy as np
import pytest

from kwsd.core.near_misses import NearMisses

THRESHOLDS = np.array([0.97, 0.9, np.inf])  # the last label never fires
CLOSE = 0.81


def run(*scores, fired=()):
    """The near misses of the first label; it fires in the windows numbered in `fired`."""
    misses = NearMisses(THRESHOLDS, 100)
    misses.push(np.array([0.1, 0.1, 1.0]), -100, [])
    found = []
    for n, score in enumerate(scores):
        found += misses.push(np.array([score, 0.1, 1.0]), 100 * n, [0] if n in fired else [])
    return found


def test_a_rise_and_fall_is_one_near_miss_with_its_highest_score():
    [near] = run(0.1, CLOSE + 0.05, 0.95, 0.9, 0.1, 0.1)
    assert (near.label, near.score, near.threshold, near.end) == (0, pytest.approx(0.95), 0.97, 200)


@pytest.mark.parametrize("scores", [(0.1, CLOSE - 0.02, 0.1), (0.1, 0.9)], ids=["not close", "has not fallen yet"])
def test_no_near_miss(scores):
    assert run(*scores) == []


def test_what_fired_is_no_near_miss_before_it_and_after_it():
    assert run(0.1, 0.9, 0.98, 0.9, 0.1, fired=[2]) == []


def test_each_rise_is_judged_anew():
    assert [near.end for near in run(0.98, 0.1, 0.9, 0.1, 0.95, 0.1, fired=[0])] == [200, 400]


def test_a_threshold_of_one_has_near_misses():
    misses = NearMisses(np.array([1.0]), 100)
    assert misses.push(np.array([0.5]), 0, []) == []
    close = 1 - 1e-10
    assert misses.push(np.array([close]), 100, []) == []
    [near] = misses.push(np.array([0.5]), 200, [])
    assert near.score == pytest.approx(close)


def test_a_rise_that_began_while_near_misses_were_off_does_not_count():
    misses = NearMisses(THRESHOLDS, 100)
    assert misses.push(np.array([0.9, 0.1, 1.0]), 1000, []) == []  # the first window that is looked at
    assert misses.push(np.array([0.1, 0.1, 1.0]), 1100, []) == []
    assert misses.push(np.array([0.9, 0.1, 1.0]), 1200, []) == []
    assert misses.push(np.array([0.1, 0.1, 1.0]), 9000, []) == []  # windows were left out
    assert misses.push(np.array([0.9, 0.1, 1.0]), 9100, []) == []
    assert len(misses.push(np.array([0.1, 0.1, 1.0]), 9200, [])) == 1


def test_a_word_in_the_refractory_period_and_other_thresholds_are_no_near_miss():
    assert run(0.1, 0.99, 0.1) == []  # above the threshold, and not detected
    misses = NearMisses(THRESHOLDS, 100)
    misses.push(np.array([0.1, 0.1, 1.0]), 0, [])
    misses.push(np.array([0.98, 0.1, 1.0]), 100, [0])
    misses.set_thresholds(np.array([0.99, 0.9, np.inf]))
    assert misses.push(np.array([0.1, 0.1, 1.0]), 200, []) == []
