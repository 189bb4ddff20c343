"""One utterance fires once, the same word twice fires twice, and time is the sample clock."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.core.card import DecisionParams
from kwsd.core.decision import Decision, thresholds_of

STRIDE = 1600  # 100 ms at 16 kHz


@pytest.fixture
def card(model):
    thresholds = dict.fromkeys(model.card.keywords, 0.6)
    return replace(model.card, decision=DecisionParams(3, 1.0, thresholds), unknown_odds=1.0)


def decision(card, changes=None):
    return Decision(card, thresholds_of(card, changes)[None])


def everywhere(card, threshold):
    return dict.fromkeys(card.keywords, threshold)


def decide(decision, label_scores, labels, label="stop", row=0):
    """Push one posterior per stride for one label; returns each label that fired, with its stride."""
    fired = []
    for step, score in enumerate(label_scores):
        posteriors = np.zeros((1, len(labels)), np.float32)
        posteriors[0, labels.index(label)] = score
        _, fires = decision.push(np.array([row]), posteriors, np.array([step * STRIDE]))
        fired += [(labels[n], step) for _, n in np.argwhere(fires)]
    return fired


def test_one_utterance_fires_once_after_smoothing(card):
    fired = decide(decision(card), [0] * 3 + [1] * 8 + [0] * 5, card.labels)
    assert fired == [("stop", 4)]  # the mean of 0, 1, 1 is the first above 0.6


def test_a_single_high_window_does_not_fire(card):
    assert decide(decision(card), [0, 0, 0, 1, 0, 0], card.labels) == []


def test_the_same_word_twice_fires_twice(card):
    scores = [0] * 3 + [1] * 8 + [0] * 5 + [1] * 8
    assert [step for _, step in decide(decision(card), scores, card.labels)] == [4, 17]


def test_a_score_must_fall_before_its_label_fires_again(card):
    assert len(decide(decision(card), [1] * 100, card.labels)) == 1


def test_the_refractory_period_is_in_samples(card):
    scores = [1] * 3 + [0] * 2 + [1] * 3 + [0] * 6 + [1] * 3  # again after 0.6 s, then after 1.4 s
    assert [step for _, step in decide(decision(card), scores, card.labels)] == [0, 15]


def test_silence_and_unknown_never_fire(card):
    for label in ("silence", "unknown"):
        assert decide(decision(card, everywhere(card, 0.01)), [1] * 10, card.labels, label) == []


def test_the_users_thresholds_replace_those_of_the_card(card):
    scores = [0.5] * 5
    assert decide(decision(card), scores, card.labels) == []
    assert len(decide(decision(card, everywhere(card, 0.4)), scores, card.labels)) == 1
    assert len(decide(decision(card, {"stop": 0.4}), scores, card.labels)) == 1
    assert decide(decision(card, everywhere(card, 0.4) | {"stop": 0.9}), scores, card.labels) == []


def test_a_reset_lets_every_label_fire_again(card):
    once = decision(card)
    assert decide(once, [1] * 3, card.labels)
    once.reset(0)
    assert decide(once, [1] * 3, card.labels) == [("stop", 0)]


def test_rows_decide_independently_of_each_other(card):
    """Streams side by side, with one pushed half as often, decide as they would alone."""
    random = np.random.default_rng(0)
    thresholds = np.stack([thresholds_of(card, everywhere(card, value)) for value in (0.4, 0.5, 0.6)])
    together, alone = Decision(card, thresholds[:1].copy()), [Decision(card, row[None]) for row in thresholds]
    together.add_rows(2)
    for row in (1, 2):
        together.set_thresholds(row, thresholds[row])
    n_fired = 0
    for step in range(400):
        rows = np.array([0, 1, 2] if step % 2 else [2, 0])
        posteriors = random.random((len(rows), len(card.labels)), np.float32) ** 2
        ends = np.full(len(rows), step * STRIDE)
        scores, fires = together.push(rows, posteriors, ends)
        for n, row in enumerate(rows):
            [own_scores], [own_fires] = alone[row].push(np.array([0]), posteriors[n : n + 1], ends[n : n + 1])
            np.testing.assert_array_equal(scores[n], own_scores)
            np.testing.assert_array_equal(fires[n], own_fires)
            n_fired += own_fires.sum()
    assert n_fired > 100
