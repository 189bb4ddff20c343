"""Scenes list their words, repeat with the same seed, and are never silent."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.audio import dbfs
from train.recordings.corpus import CLIP_SAMPLES, find_corpus
from train.recordings.material import Material, gather
from train.recordings.scenes import Scene, Spoken, Style, compose, noise_bed
from train.recordings.windows import words_in_windows

QUIET = replace(Style(), noise=0.0, reverb=0.0, speed=0.0)


@pytest.fixture(scope="module")
def material(corpus_folder, tmp_path_factory):
    return gather(find_corpus(corpus_folder, ("yes", "no")), "training", tmp_path_factory.mktemp("cache"))


def test_the_same_seed_makes_the_same_scene(material):
    first, again, other = (compose(material, Style(), 10.0, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.spoken == again.spoken != other.spoken


def test_words_are_where_the_scene_lists_them(material):
    scene = compose(material, replace(QUIET, cut=0.0, double=0.0, close=0.0), 30.0, np.random.default_rng(0))
    assert len(scene.samples) == 30 * 16000
    assert len(scene.spoken) > 8
    power = np.square(scene.samples)
    inside = np.zeros(len(power), bool)
    for one in scene.spoken:
        assert 0 <= one.start < one.end <= len(power)
        inside[one.start : one.end] = True
    assert power[inside].mean() > 30 * power[~inside].mean()
    assert {one.word for one in scene.spoken} <= {0, 1, 4}  # no parts of words were requested


def test_no_scene_is_digitally_silent_or_beyond_full_scale(material):
    for seed in range(5):
        samples = compose(material, Style(), 5.0, np.random.default_rng(seed)).samples
        assert np.abs(samples).max() <= 1
        assert min(np.abs(block).max() for block in np.split(samples, 50)) > 0


def test_noise_consists_of_many_recordings_and_hiss_where_they_are_silent(material, monkeypatch):
    read = Material.samples
    indices = []

    def samples(self, index, start=0, n_samples=None):
        indices.append(index)
        return 0 * read(self, index, start, n_samples)

    monkeypatch.setattr(Material, "samples", samples)
    style = replace(Style(), coloured=0.0, noise_layers=1)
    bed = noise_bed(material, 60 * 16000, -40.0, style, np.random.default_rng(0))
    assert len(indices) > 60 * 16000 / material.lengths[material.noises].max()  # no recording is looped
    assert np.abs(bed).reshape(-1, 160).max(axis=1).min() > 0
    assert dbfs(bed) == pytest.approx(-85, abs=1)


def test_a_room_recording_stays_unchanged_and_speech_is_louder(material):
    room = 0.01 * np.random.default_rng(1).standard_normal(30 * 16000).astype(np.float32)
    style = replace(QUIET, noise=1.0, snr_db=(20.0, 20.0), level_spread_db=0.0, close=0.0, long_pause=(3.0, 4.0))
    scene = compose(material, style, 30.0, np.random.default_rng(0), room)
    spoken = np.zeros(len(room), bool)
    for one in scene.spoken:
        spoken[max(0, one.start - 16000) : one.end + 16000] = True  # with the rest of its clip
    assert spoken.mean() < 0.9
    np.testing.assert_array_equal(scene.samples[~spoken], room[~spoken])
    assert dbfs(np.concatenate([scene.samples[one.start : one.end] for one in scene.spoken])) > dbfs(room) + 15


def test_a_background_voice_lasts_the_whole_scene_and_is_softer(material):
    style = replace(QUIET, speech=0.0, level_spread_db=0.0, level_dbfs=(-30.0, -30.0), voices_snr_db=(10.0, 10.0))
    speaking = replace(material, speech=material.others)
    alone, disturbed = (
        compose(speaking, replace(style, voices=voices), 20.0, np.random.default_rng(0)) for voices in (0.0, 1.0)
    )
    assert disturbed.spoken == [Spoken(material.labels.index("unknown"), 0, 20 * 16000), *alone.spoken]
    voice = disturbed.samples - alone.samples
    assert [dbfs(second) for second in np.split(voice, 20)] == pytest.approx([-40] * 20, abs=6)


def test_a_style_without_keywords_has_none(material):
    scene = compose(material, replace(Style(), keyword=0.0, other=0.0), 20.0, np.random.default_rng(0))
    assert scene.spoken
    assert {one.word for one in scene.spoken} == {3}


def test_each_window_gets_the_word_that_it_contains():
    """Silence, then a keyword from 2.0 to 2.5 s, then another word from 3.0 to 3.4 s; windows every 10 ms."""
    scene = Scene(np.zeros(6 * 16000, np.float32), [Spoken(0, 32000, 40000), Spoken(4, 48000, 54400)])
    words = words_in_windows(scene, 500, 160, CLIP_SAMPLES, n_labels=4)
    at = {round(start * 0.01, 2): int(word) for start, word in enumerate(words)}
    assert at[0.5] == 2  # silence: the word begins at 2.0, the window ends at 1.5
    assert at[1.2] == 3  # less than half of the word: unknown
    assert at[1.45] == -1  # nearly all of it: no word
    assert at[1.5] == at[1.8] == at[2.0] == 0  # all of it, anywhere in the window
    assert at[2.1] == -1  # its first 20 % are gone
    assert at[2.2] == 3  # 40 % are gone
    assert at[2.5] == 4  # the other word ended last
    assert at[4.0] == 2


def test_all_windows_with_running_speech_are_unknown():
    scene = Scene(np.zeros(6 * 16000, np.float32), [Spoken(3, 24000, 24000 + 4 * 16000)])
    words = words_in_windows(scene, 500, 160, CLIP_SAMPLES, n_labels=4)
    first = int(np.argmax(words == 3))
    assert set(words[:first]) == {2}
    assert -1 not in words


def test_a_background_voice_is_unknown_where_no_other_word_is_spoken():
    said = [Spoken(3, 0, 6 * 16000), Spoken(0, 32000, 40000), Spoken(4, 64000, 70400)]
    words = words_in_windows(Scene(np.zeros(6 * 16000, np.float32), said), 500, 160, CLIP_SAMPLES, n_labels=4)
    at = {round(1 + start * 0.01, 2): int(word) for start, word in enumerate(words)}  # by the window's end
    assert at[1.0] == at[2.2] == at[3.8] == at[5.9] == 3
    assert at[2.6] == at[2.9] == 0
    assert at[4.5] == 4


def test_a_word_soon_after_a_keyword_does_not_replace_it():
    """A keyword from 1.0 to 1.3 s, another word from 1.4 to 1.6 s; the keyword again from 3.0 s, then a longer word."""
    said = [Spoken(0, 16000, 20800), Spoken(4, 22400, 25600), Spoken(1, 48000, 52800), Spoken(0, 54400, 57600)]
    words = words_in_windows(Scene(np.zeros(6 * 16000, np.float32), said), 500, 160, CLIP_SAMPLES, n_labels=4)
    at = {round(1 + start * 0.01, 2): int(word) for start, word in enumerate(words)}  # by the window's end
    assert at[1.35] == at[1.6] == at[1.8] == 0  # although the other word ended at 1.6
    assert at[1.85] == at[2.0] == 4  # half a second after the keyword
    assert at[3.5] == 1
    assert at[3.59] == -1  # the next keyword is nearly whole
    assert at[3.65] == 0  # another keyword does replace it
