"""Held-out features are the same as those that kwsd computes."""

import shutil

import numpy as np
import pytest
import soundfile

from kwsd.core.frontend import SPECTROGRAM_8K, clip_features
from kwsd.sources.recording import read_recording
from train.recordings.corpus import find_corpus, noise_parts
from train.recordings.features import held_out_examples, in_longer_noise


@pytest.fixture
def corpus(corpus_folder):
    return find_corpus(corpus_folder, ("yes", "no"))


def test_held_out_features_equal_those_of_kwsd_label(corpus):
    examples = held_out_examples(corpus, "validation", SPECTROGRAM_8K)
    words = [i for i, clip in enumerate(examples.clips) if clip.label != "silence"]
    assert words
    for i in words:
        want = clip_features(*read_recording(examples.clips[i].path), 99, SPECTROGRAM_8K)
        np.testing.assert_array_equal(examples.x[i], want)
        assert corpus.labels[examples.y[i]] == examples.clips[i].label


def test_the_word_of_a_longer_clip_is_in_the_middle(corpus_folder, tmp_path):
    folder = shutil.copytree(corpus_folder, tmp_path / "longer")
    for path in (folder / "yes").iterdir():
        samples, rate_hz = soundfile.read(path, dtype="int16")
        soundfile.write(path, np.pad(samples, (0, 32000)), rate_hz)  # two seconds of silence behind it
    longer, usual = (
        held_out_examples(find_corpus(one, ("yes", "no")), "validation", SPECTROGRAM_8K)
        for one in (folder, corpus_folder)
    )
    assert [clip.path.name for clip in longer.clips] == [clip.path.name for clip in usual.clips]
    for one, other, clip in zip(longer.x, usual.x, longer.clips, strict=True):
        if clip.label == "yes":
            assert one.max() == pytest.approx(other.max(), abs=0.5)


def test_noise_is_added_to_the_same_clips(corpus):
    clean = held_out_examples(corpus, "validation", SPECTROGRAM_8K)
    noisy = held_out_examples(corpus, "validation", SPECTROGRAM_8K, snr_db=0)
    assert noisy.clips == clean.clips
    words = np.array([clip.label != "silence" for clip in clean.clips])
    quietest = np.quantile(clean.x[words], 0.1)
    assert np.quantile(noisy.x[words], 0.1) > quietest + 1  # noise fills the quiet parts
    again = held_out_examples(corpus, "validation", SPECTROGRAM_8K, snr_db=0)
    np.testing.assert_array_equal(noisy.x, again.x)


def test_longer_clips_contain_the_word_in_softer_noise(corpus):
    noises = noise_parts(corpus, "validation")
    clip = 0.5 * np.sin(np.arange(8000) / 3).astype(np.float32)
    longer = [in_longer_noise(clip, noises, np.random.default_rng(seed)) for seed in range(20)]
    seconds = [len(samples) / 16000 for samples in longer]
    assert 1.2 <= min(seconds) < 2
    assert 3 < max(seconds) <= 4
    for samples in longer:
        likeness = np.correlate(samples, clip, "valid")
        at = int(np.argmax(likeness))
        assert likeness[at] == pytest.approx(np.dot(clip, clip), rel=0.1)
        rest = np.delete(samples, slice(at, at + len(clip)))
        assert np.sqrt(np.mean(rest**2)) < 0.4 * np.sqrt(np.mean(clip**2))
    same = in_longer_noise(clip, noises, np.random.default_rng(0))
    np.testing.assert_array_equal(same, longer[0])
