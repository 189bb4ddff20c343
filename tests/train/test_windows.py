"""Epochs are made in other processes, repeat with the seed, and hold what was asked for."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.frontend import LOGMEL_16K, SPECTROGRAM_8K
from train.data import find_corpus
from train.hyperparameters import Hyperparameters
from train.material import gather
from train.windows import Epochs, Recipe, window_frames

HYPER = Hyperparameters(windows_per_epoch=500, windows_per_scene=60, mined_share=0.1)


@pytest.fixture(scope="module")
def recipe(corpus_folder, tmp_path_factory):
    corpus = find_corpus(corpus_folder, ("yes", "no"))
    return Recipe(gather(corpus, "training", tmp_path_factory.mktemp("cache")), LOGMEL_16K, 98, HYPER)


@pytest.fixture(scope="module")
def batches(recipe):
    with Epochs(recipe, 2) as epochs:
        return [epochs.epoch(number) for number in (0, 1)]


def test_an_epoch_has_its_windows_and_candidates(batches):
    for batch in batches:
        assert batch.windows.shape == (len(batch.words), 98, 40)
        assert len(batch.words) >= HYPER.windows_per_epoch
        assert np.isfinite(batch.windows).all()
        assert len(batch.candidates) > 0


def test_all_words_occur_in_their_shares(batches):
    words = np.concatenate([batch.words for batch in batches])
    assert set(words) == {0, 1, 2, 3, 4}
    assert 0.3 < np.mean(words < 2) < 0.6
    assert 0.03 < np.mean(words == 2) < 0.3


def test_epochs_differ_and_repeat(recipe, batches):
    assert not np.array_equal(batches[0].windows[:100], batches[1].windows[:100])
    with Epochs(recipe, 2) as epochs:  # resumed: the second epoch alone
        again = epochs.epoch(1)
    np.testing.assert_array_equal(again.windows, batches[1].windows)
    np.testing.assert_array_equal(again.words, batches[1].words)


def test_every_front_end_has_its_windows(recipe):
    frames = window_frames(SPECTROGRAM_8K)
    hyper = replace(HYPER, windows_per_epoch=50, mined_share=0.0)
    with Epochs(replace(recipe, params=SPECTROGRAM_8K, window_frames=frames, hyper=hyper), 1) as epochs:
        batch = epochs.epoch(0)
    assert batch.windows.shape[1:] == (99, 81)
    assert len(batch.candidates) == 0
