"""Features are the product's, made once, and never stale."""

from dataclasses import replace

import numpy as np
import pytest

import train.features
from kwsd.audio import read_recording
from kwsd.frontend import LOGMEL_16K, SPECTROGRAM_8K, clip_features
from train.data import find_corpus
from train.features import held_out_examples, training_examples
from train.hyperparameters import Hyperparameters

HYPER = Hyperparameters(n_variants=2, n_silence=5, unknown_ratio=0.5)


@pytest.fixture
def corpus(corpus_folder):
    return find_corpus(corpus_folder, ("yes", "no"))


def test_held_out_features_are_what_kwsd_label_computes(corpus, tmp_path):
    examples = held_out_examples(corpus, "validation", SPECTROGRAM_8K, tmp_path)
    words = [i for i, clip in enumerate(examples.clips) if clip.label != "silence"]
    assert words
    for i in words:
        want = clip_features(*read_recording(examples.clips[i].path), 99, SPECTROGRAM_8K)
        np.testing.assert_array_equal(examples.x[i], want)
        assert corpus.labels[examples.y[i]] == examples.clips[i].label


def test_training_features_are_computed_once_and_repeat_with_the_seed(corpus, tmp_path, monkeypatch):
    first = training_examples(corpus, SPECTROGRAM_8K, HYPER, tmp_path / "a")
    assert first.x.shape == (len(first.clips), 99, 81)
    again = training_examples(corpus, SPECTROGRAM_8K, HYPER, tmp_path / "b")
    np.testing.assert_array_equal(first.x, again.x)
    monkeypatch.setattr(train.features, "_compute", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(training_examples(corpus, SPECTROGRAM_8K, HYPER, tmp_path / "a").x, first.x)


@pytest.mark.parametrize(
    ("params", "changes"),
    [
        (LOGMEL_16K, {}),
        (replace(SPECTROGRAM_8K, log_floor=1e-9), {}),
        (SPECTROGRAM_8K, {"seed": 2}),
        (SPECTROGRAM_8K, {"snr_low_db": 0.0}),
        (SPECTROGRAM_8K, {"n_silence": 6}),
    ],
)
def test_what_changes_features_changes_their_file(corpus, tmp_path, params, changes):
    training_examples(corpus, SPECTROGRAM_8K, HYPER, tmp_path)
    training_examples(corpus, params, replace(HYPER, **changes), tmp_path)
    assert len(list(tmp_path.glob("*.npy"))) == 2


def test_variants_differ_and_nothing_is_half_written(corpus, tmp_path, monkeypatch):
    examples = training_examples(corpus, SPECTROGRAM_8K, HYPER, tmp_path)
    first, second = (i for i, clip in enumerate(examples.clips) if clip == examples.clips[0])
    assert not np.array_equal(examples.x[first], examples.x[second])

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train.features, "_block", broken)
    with pytest.raises(KeyboardInterrupt):
        training_examples(corpus, LOGMEL_16K, HYPER, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
