"""The numbers of a training: stages, the loss, scores, and hyper-parameters."""

import numpy as np
import pytest

from kwsd.errors import TrainingError
from train.fit import MarginLoss, stages_of
from train.hyperparameters import Hyperparameters
from train.measure.clips import score, wilson


def test_stages_follow_each_other_and_the_last_distils():
    def stages(**keys):
        return [(one.begin, one.end, one.distils) for one in stages_of(Hyperparameters(epochs=8, **keys))]

    assert stages(restarts=0) == [(0, 8, False)]
    assert stages(restarts=1, restart_epochs=4) == [(0, 8, False), (8, 12, True)]
    assert stages(restarts=2, restart_epochs=4) == [(0, 8, False), (8, 12, False), (12, 16, True)]


def test_the_margin_is_subtracted_from_the_right_logit():
    random = np.random.default_rng(0)
    logits, right = random.standard_normal((6, 4)), np.array([0, 1, 2, 3, 0, 1])
    posteriors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    handicapped = logits.copy()
    handicapped[np.arange(6), right] -= 1.5
    want = np.log(np.exp(handicapped).sum(axis=1)) - handicapped[np.arange(6), right]
    assert float(MarginLoss(1.5)(right, posteriors.astype(np.float32))) == pytest.approx(want.mean(), rel=1e-5)
    plain = -np.log(posteriors[np.arange(6), right])
    smooth = 0.9 * plain - 0.1 * np.log(posteriors).mean(axis=1)
    assert float(MarginLoss(0.0, 0.1)(right, posteriors.astype(np.float32))) == pytest.approx(smooth.mean(), rel=1e-5)


def test_score_gives_confusion_accuracy_and_recall():
    report = score(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), ["a", "b"])
    assert report["confusion"] == [[1, 1], [1, 2]]
    assert report["accuracy"] == 0.6
    assert report["recall"] == {"a": 0.5, "b": 0.6667}
    assert wilson(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)  # Wilson's own example range


def test_hyperparameters_are_changed_by_name():
    assert Hyperparameters().changed(["seed=5", "learning_rate=3e-4"]).learning_rate == 3e-4
    with pytest.raises(TrainingError, match=r"--set epoch: unknown key; did you mean epochs\?"):
        Hyperparameters().changed(["epoch=3"])
    with pytest.raises(TrainingError, match="--set seed: 'x' is not a whole number"):
        Hyperparameters().changed(["seed=x"])
    for assignment in ("epochs=0", "batch_seconds=-1", "margin=nan", "mask_share=2", "clip_weight=0"):
        with pytest.raises(TrainingError, match=r"--set \w+: .* is not (between|a number)"):
            Hyperparameters().changed([assignment])
