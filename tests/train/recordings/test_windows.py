"""Epochs are made in other processes, repeat with the same seed, and contain the requested shares."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.core.frontend import LOGMEL_16K, SPECTROGRAM_8K
from kwsd.errors import TrainingError
from train.fit import fit
from train.hyperparameters import Hyperparameters
from train.recordings import windows
from train.recordings.corpus import find_corpus
from train.recordings.material import gather
from train.recordings.windows import Epochs, Recipe, window_frames

HYPER = Hyperparameters(scenes_per_epoch=12)


@pytest.fixture(scope="module")
def recipe(corpus_folder, tmp_path_factory):
    corpus = find_corpus(corpus_folder, ("yes", "no"))
    material = gather(corpus, "training", tmp_path_factory.mktemp("cache"))
    return Recipe(material, LOGMEL_16K, 98, n_windows=201, step_frames=2, hyper=HYPER)


@pytest.fixture(scope="module")
def epochs_of_two(recipe):
    with Epochs(recipe, 2) as epochs:
        return [epochs.epoch(number) for number in (0, 1)]


def test_an_epoch_has_stretches_of_the_expected_number_and_shape(recipe, epochs_of_two):
    for epoch in epochs_of_two:
        assert epoch.x.shape == (recipe.n_stretches, 98 + 2 * 200, 40)
        assert epoch.words.shape == epoch.weights.shape == (recipe.n_stretches, 201)
        assert np.isfinite(epoch.x).all()


def test_keywords_and_lone_clips_have_larger_weights(epochs_of_two):
    words = np.concatenate([epoch.words for epoch in epochs_of_two])
    weights = np.concatenate([epoch.weights for epoch in epochs_of_two])
    assert set(np.unique(words)) == {-1, 0, 1, 2, 3, 4}
    assert weights[words == -1].sum() == 0
    assert set(np.unique(weights)) == {0, 1, 2, 8, 16}  # larger for keywords and lone clips
    assert 0.7 < weights.mean() < 1.5
    assert 0.4 < weights[(words >= 0) & (words < 2)].sum() / weights.sum() < 0.8


def test_epochs_differ_and_are_repeatable(recipe, epochs_of_two):
    assert not np.array_equal(epochs_of_two[0].x[:10], epochs_of_two[1].x[:10])
    with Epochs(recipe, 2) as epochs:  # as after a resume: only the second epoch
        again = epochs.epoch(1)
    for first, second in zip(again, epochs_of_two[1], strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_network_of_single_windows_gets_its_shares_by_sampling(recipe):
    frames = window_frames(SPECTROGRAM_8K)
    with Epochs(replace(recipe, params=SPECTROGRAM_8K, window_frames=frames, n_windows=1), 1) as epochs:
        epoch = epochs.epoch(0)
    assert epoch.x.shape[1:] == (99, 81)
    assert epoch.words.shape == (len(epoch.x), 1)
    assert (epoch.words >= 0).all()
    assert (epoch.weights == 1).all()
    assert 0.4 < np.mean(epoch.words < 2) < 0.8


def test_a_fit_that_failed_before_its_first_epoch_leaves_its_folder_free(corpus_folder, tmp_path, monkeypatch):
    corpus, run, cache = find_corpus(corpus_folder, ("yes", "no")), tmp_path / "run", tmp_path / "cache"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(windows, "ProcessPoolExecutor", full)
    with pytest.raises(TrainingError, match=r"no shared memory \(No space left on device\)"):
        fit(corpus, "ds_tcn", Hyperparameters(seed=8), run, cache)
    with pytest.raises(TrainingError, match="no shared memory"):  # and not: another training
        fit(corpus, "ds_tcn", Hyperparameters(seed=9), run, cache)
