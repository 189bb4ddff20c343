"""One utterance fires once; the same word twice fires twice; time is the sample clock."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.card import DecisionParams
from kwsd.decision import Decision

STRIDE = 1600  # 100 ms at 16 kHz


@pytest.fixture
def card(model):
    thresholds = dict.fromkeys(model.card.keywords, 0.6)
    return replace(model.card, decision=DecisionParams(3, 1.0, thresholds), unknown_odds=1.0)


def decide(decision, label_scores, labels, label="stop"):
    """Push one posterior a stride for one label; what fired, at which stride."""
    fired = []
    for step, score in enumerate(label_scores):
        posteriors = np.zeros(len(labels), np.float32)
        posteriors[labels.index(label)] = score
        fired += [(one.label, step) for one in decision.push(posteriors, step * STRIDE)]
    return fired


def test_one_utterance_fires_once_and_late_enough_to_be_smoothed(card):
    fired = decide(Decision(card), [0] * 3 + [1] * 8 + [0] * 5, card.labels)
    assert fired == [("stop", 4)]  # the mean of 0, 1, 1 is the first above 0.6


def test_one_window_alone_is_not_enough(card):
    assert decide(Decision(card), [0, 0, 0, 1, 0, 0], card.labels) == []


def test_the_same_word_twice_fires_twice(card):
    scores = [0] * 3 + [1] * 8 + [0] * 5 + [1] * 8
    assert [step for _, step in decide(Decision(card), scores, card.labels)] == [4, 17]


def test_a_label_must_fall_before_it_fires_again(card):
    assert len(decide(Decision(card), [1] * 100, card.labels)) == 1


def test_the_refractory_period_is_in_samples(card):
    scores = [1] * 3 + [0] * 2 + [1] * 3 + [0] * 6 + [1] * 3  # again after 0.6 s, then after 1.4 s
    assert [step for _, step in decide(Decision(card), scores, card.labels)] == [0, 15]


def test_silence_and_unknown_never_fire(card):
    for label in ("silence", "unknown"):
        assert decide(Decision(card, threshold=0.01), [1] * 10, card.labels, label) == []


def test_thresholds_of_the_user_come_before_the_cards(card):
    scores = [0.5] * 5
    assert decide(Decision(card), scores, card.labels) == []
    assert len(decide(Decision(card, threshold=0.4), scores, card.labels)) == 1
    assert len(decide(Decision(card, thresholds={"stop": 0.4}), scores, card.labels)) == 1
    assert decide(Decision(card, threshold=0.4, thresholds={"stop": 0.9}), scores, card.labels) == []


def test_reset_arms_again(card):
    decision = Decision(card)
    assert decide(decision, [1] * 3, card.labels)
    decision.reset()
    assert decide(decision, [1] * 3, card.labels) == [("stop", 0)]
