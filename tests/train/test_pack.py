"""A pack has speech, words and noise in both halves, and fits its model's trunk."""

import shutil

import pytest

from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.errors import TrainingError
from kwsd.learn.graft import Graphs
from kwsd.learn.pack import load_pack
from kwsd.learn.trunk import Trunk
from train.pack import make_pack
from train.recordings.corpus import find_corpus


@pytest.fixture(scope="module")
def model():
    return load_model(DEFAULT_MODEL, "cpu")


@pytest.fixture
def noise(corpus_folder, tmp_path):
    folder = tmp_path / "noise"
    folder.mkdir()
    for n in range(4):
        shutil.copy(corpus_folder / "_background_noise_" / "hiss.wav", folder / f"hiss{n}.wav")
    return folder


def test_a_pack_has_both_halves_and_can_be_loaded(corpus_folder, noise, model, tmp_path):
    corpus = find_corpus(corpus_folder, ("yes", "no"), (noise,), (corpus_folder / "tree",))
    make_pack(model, corpus, 0.02, "nobody").save(tmp_path / "pack.npz")
    pack = load_pack(tmp_path / "pack.npz", Trunk(Graphs(model.path), model.card, model.path))
    assert pack.names == ["speech", "noise", "no", "tree", "yes"]
    for part in (pack.training, pack.measuring):
        assert {pack.names[kind] for kind in part.kinds} == set(pack.names)


def test_a_single_recording_of_noise_is_too_few(corpus_folder, model):
    corpus = find_corpus(corpus_folder, ("yes", "no"), (), (corpus_folder / "tree",))
    with pytest.raises(TrainingError, match="a pack needs noise in both halves"):
        make_pack(model, corpus, 0.02, "nobody")
