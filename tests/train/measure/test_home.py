"""A day at home has every situation in its share, with rare keywords above the rest."""

from dataclasses import replace

import numpy as np
import pytest

from kwsd.errors import TrainingError
from kwsd.learn.augment import music, rms
from train.measure.home import SITUATIONS, day_at_home
from train.recordings.corpus import RATE_HZ, find_corpus
from train.recordings.material import gather


@pytest.fixture(scope="module")
def without_speech(corpus_folder, tmp_path_factory):
    return gather(find_corpus(corpus_folder, ("yes", "no")), "validation", tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def material(without_speech):
    """Other words stand for the speech."""
    return replace(without_speech, speech=without_speech.others)


def test_the_situations_are_a_day():
    assert sum(one.hours_a_day for one in SITUATIONS.values()) == 24


def test_every_situation_has_its_share_of_the_hours(material):
    streams = day_at_home(material, 24.0, seed=1)
    n_scenes = {name: len(stream) for name, stream in streams.by_name.items()}
    assert n_scenes == {name: 6 * one.hours_a_day for name, one in SITUATIONS.items()}  # scenes of ten minutes
    assert streams.hours_a_day["quiet"] == 15.0


def test_a_day_without_speech_or_noise_is_refused(without_speech, material):
    with pytest.raises(TrainingError, match="give recordings of it with --speech"):
        day_at_home(without_speech, 1.0, seed=1)
    with pytest.raises(TrainingError, match="give recordings of it with --noise"):
        day_at_home(replace(material, noises=material.noises[:0]), 1.0, seed=1)


def test_keywords_are_rare_and_louder_than_the_rest(material):
    streams = day_at_home(material, 1.0, seed=1)
    scene = streams.by_name["quiet"][0]()
    assert len(scene.samples) == 600 * RATE_HZ
    assert 3 <= len(scene.spoken) <= 10
    outside = np.ones(len(scene.samples), bool)
    for one in scene.spoken:
        outside[one.start - RATE_HZ : one.end + RATE_HZ] = False
    levels = [rms(scene.samples[one.start : one.end]) for one in scene.spoken]
    assert np.median(levels) > 1.5 * rms(scene.samples[outside])


@pytest.mark.slow
def test_a_seed_repeats_a_scene_and_situations_differ(material):
    first, again = (day_at_home(material, 1.0, seed=1).by_name["music"][0]() for _ in range(2))
    other = day_at_home(material, 1.0, seed=1).by_name["quiet"][0]()
    np.testing.assert_array_equal(first.samples, again.samples)
    assert not np.array_equal(first.samples, other.samples)


def test_music_has_level_one_and_changes_all_the_time():
    samples = music(5 * RATE_HZ, RATE_HZ, np.random.default_rng(0))
    assert rms(samples) == pytest.approx(1.0, abs=0.01)
    seconds = samples.reshape(5, RATE_HZ)
    assert min(rms(one) for one in seconds) > 0.2
    assert np.abs(np.corrcoef(seconds)[np.triu_indices(5, 1)]).max() < 0.9
