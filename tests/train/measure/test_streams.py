"""Streams are counted as published figures are: hits, substitutions, and false accepts outside keywords."""

import numpy as np
import pytest

from kwsd.core.spotter import Detection, Spotter
from kwsd.core.sweep import GRID, Fired, TimedSweep
from train.measure.stream_report import describe, poisson
from train.measure.streams import Said, is_inside, keyword_times, match, match_label


def test_each_keyword_is_hit_once_and_within_a_second():
    said = [Said(0, 1.0, 1.5), Said(0, 5.0, 5.5), Said(0, 9.0, 9.4)]
    assert match_label(said, [1.7]) == {0: 1.7}
    assert match_label(said, [1.7, 2.0]) == {0: 1.7}  # the second hits nothing
    assert match_label(said, [0.9, 3.0, 6.6]) == {}
    assert match_label(said, [1.2, 5.6, 10.3]) == {0: 1.2, 1: 5.6, 2: 10.3}


def test_times_of_keywords_are_merged():
    said = [Said(0, 1.0, 1.5), Said(1, 2.2, 2.6), Said(0, 9.0, 9.4)]
    times = keyword_times(said)
    np.testing.assert_allclose(times, [[1.0, 9.0], [3.6, 10.4]])
    assert is_inside(times, np.array([0.9, 1.0, 3.6, 3.7, 9.5, 10.5])).tolist() == [
        False,
        True,
        True,
        False,
        True,
        False,
    ]
    assert is_inside(keyword_times([]), np.array([1.0])).tolist() == [False]


def test_another_label_during_a_keyword_is_a_substitution_and_not_a_false_accept(model):
    said = [Said(0, 1.0, 1.5), Said(1, 10.0, 10.5)]
    sweep = TimedSweep(model.card)
    for grid in range(6):
        sweep.fired += [Fired(grid, label, end) for label, end in ((0, 1.7), (0, 2.4), (2, 10.9), (3, 20.0))]
    measured = match(said, sweep, 3610.0, 10, [])
    assert measured.free_seconds == pytest.approx(3607.0)
    assert measured.hits[5].tolist() == [1, *[0] * 9]
    assert measured.substitutions[5].tolist() == [1, 0, 1, *[0] * 7]  # the first keyword fired twice
    assert measured.false_accepts[5].tolist() == [0, 0, 0, 1, *[0] * 6]
    at = describe(measured, model.card.keywords)["at_rate"]["1"]
    assert (at["frr"], at["substitutions"], at["false_accepts"]) == (0.5, 2, 1)
    assert at["frr_old_count"] == 1.0  # three events in an hour, counted as before, are too many


@pytest.fixture
def measured(model):
    sweep = TimedSweep(model.card)
    for grid in range(60):  # a hit of each label at low thresholds, and a false accept at the lowest
        sweep.fired += [Fired(grid, 0, 1.7), Fired(grid, 1, 5.7)]
        if grid < 20:
            sweep.fired.append(Fired(grid, 1, 8.0))
    detections = [
        Detection("yes", 0.9, 0.7, 1.7, -20.0),
        Detection("left", 0.9, 4.7, 5.7, -20.0),
        Detection("yes", 0.9, 20.0, 21.0, -20.0),
    ]
    return match([Said(0, 1.0, 1.5), Said(1, 5.0, 5.5)], sweep, 1800.0, 10, detections)


def test_thresholds_trade_hits_for_false_accepts(measured, model):
    assert measured.hits[:60, :2].sum() == 120
    assert measured.hits[60:].sum() == 0
    assert measured.false_accepts.sum() == measured.false_accepts[:20, 1].sum() == 20
    report = describe(measured, model.card.keywords)
    at = report["at_rate"]["1"]
    assert (at["threshold"], at["frr"], at["false_accepts"]) == (pytest.approx(GRID[20], abs=1e-5), 0.0, 0)
    assert at["reached"]
    assert not at["supported"]  # half an hour is too short to show a rate of 1 an hour
    assert at["frr_of"]["yes"]["n"] == 1
    assert at["latency_p95"] == pytest.approx(0.2)


def test_a_rate_that_no_threshold_reaches_is_reported_as_not_reached(model):
    sweep = TimedSweep(model.card)
    sweep.fired += [Fired(grid, 0, 9.0) for grid in range(len(GRID))]
    at = describe(match([Said(0, 1.0, 1.5)], sweep, 1800.0, 10, []), model.card.keywords)["at_rate"]["1"]
    assert not at["reached"]
    assert (at["threshold"], at["false_accepts"]) == (pytest.approx(GRID[-1], abs=1e-5), 1)


def test_recordings_that_are_never_detected_are_counted(model):
    recordings = [(1, 3), *[(0, 7)] * 6, *[(0, 8)] * 5, *[(0, 9)] * 2]  # the last occurs too rarely to count
    said = [Said(label, 10.0 * n, 10.0 * n + 0.5, recording) for n, (label, recording) in enumerate(recordings)]
    sweep = TimedSweep(model.card)
    sweep.fired += [Fired(grid, 0, 10.0 * said_at + 1) for grid in range(len(GRID)) for said_at in (7, 9)]
    at = describe(match(said, sweep, 1800.0, 10, []), model.card.keywords)["at_rate"]["1"]
    by_chance = round((11 / 13) ** 6 + (11 / 13) ** 5, 1)
    assert at["never_heard"] == {"recordings": 2, "never": 1, "by_chance": by_chance, "misses": 9, "of_never": 6}


def test_the_report_has_tensorflows_percentages(measured, model):
    own = describe(measured, model.card.keywords)["own_thresholds"]
    assert own["tensorflow_percent"] == {"matched": 100.0, "correct": 50.0, "wrong": 50.0, "false_positives": 50.0}
    assert own["frr"] == 0.5
    assert (own["substitutions"], own["false_accepts"]) == (1, 1)
    assert own["per_hour"] == pytest.approx(2.0, abs=0.01)


def test_poisson_intervals_are_close_to_the_exact_ones():
    """Garwood's (1936) exact bounds: 0 to 3.69, 0.025 to 5.57, 4.80 to 18.39."""
    assert poisson(0) == pytest.approx((0, 3.69), abs=0.05)
    assert poisson(1) == pytest.approx((0.025, 5.57), abs=0.05)
    assert poisson(10) == pytest.approx((4.80, 18.39), abs=0.05)


def test_a_sweep_gives_the_same_detections_as_each_threshold_alone(model, demo):
    sweep = TimedSweep(model.card)
    sweep.push(Spotter(model, 16000).process(demo))
    assert sweep.n_windows > 250
    counts = sweep.counts
    for grid in (10, 50, 80):
        alone = Spotter(model, 16000, thresholds=dict.fromkeys(model.card.keywords, float(GRID[grid]))).push(demo)
        swept = [(model.card.labels[one.label], one.end_seconds) for one in sweep.fired if one.grid == grid]
        assert swept == [(one.label, pytest.approx(one.end_seconds)) for one in alone]
        assert counts[grid].sum() == len(alone)
    assert np.all(counts[:, -2:] == 0)  # silence and unknown never fire
