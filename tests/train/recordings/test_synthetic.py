"""Synthetic talk: what is said, and the files that it becomes."""

import numpy as np
import pytest
import soundfile

from kwsd.errors import LearnError, TrainingError
from train.recordings.corpus import KEYWORDS, RATE_HZ, find_corpus, split_by_speaker
from train.recordings.synthetic import synthesise_talk
from train.recordings.talk import NEAR, Talk


class Hum:
    """A synthesiser whose voices hum, a tenth of a second for each letter."""

    name = "hum"

    def __init__(self, voices=("low", "high", "loud", "soft"), fails_after=None):
        self.voices = list(voices)
        self.n_said, self._fails_after = 0, fails_after

    def say(self, text, voice, speed):
        self.n_said += 1
        if self.n_said == self._fails_after:
            raise LearnError("hum cannot say 'this' (hoarse)")
        seconds = np.arange(round(len(text) * 0.1 / speed * RATE_HZ)) / RATE_HZ
        return np.sin(2 * np.pi * (100 + 50 * self.voices.index(voice)) * seconds).astype(np.float32)


def _utterances(talk, n=2000):
    random = np.random.default_rng(0)
    return [talk.utterance(random) for _ in range(n)]


def test_talk_never_says_a_keyword_and_varies():
    utterances = _utterances(Talk())
    said = {word.strip(".,!?").lower() for utterance in utterances for word in utterance.split()}
    assert not said & {*KEYWORDS, "know", "write"}
    assert len(set(utterances)) > 1500
    assert {word for words in NEAR.values() for word in words} <= said


def test_talk_avoids_other_keywords_and_has_words_near_them():
    utterances = _utterances(Talk(("computer", "one"), ("commuter",)))
    said = {word.strip(".,!?").lower() for utterance in utterances for word in utterance.split()}
    assert "commuter" in said
    assert not said & {"computer", "one", "won"}


@pytest.mark.parametrize("near", ["yes", "Know"])
def test_a_near_word_that_is_a_keyword_is_refused(near):
    with pytest.raises(TrainingError, match=f"^--near {near}: is a keyword, or sounds like one$"):
        Talk(near=(near,))


def test_a_keyword_of_nearly_every_sentence_is_refused():
    with pytest.raises(TrainingError, match=r"^--words: nearly every sentence contains one of .*, the, "):
        _utterances(Talk(("the", "a", "i", "we", "and", "in", "is", "that", "what", "my", "has", "it", "at")), 2000)


def test_each_file_is_a_minute_by_a_voice_of_training(tmp_path):
    assert synthesise_talk(tmp_path, 3 / 60, Hum(), Talk(), seed=1) == 3
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 3
    for path in paths:
        assert split_by_speaker(path.stem) == "training"
        samples, rate_hz = soundfile.read(path)
        assert rate_hz == RATE_HZ
        assert 60 < len(samples) / rate_hz < 75
        assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.2


def test_an_interrupted_run_continues_with_the_files_that_are_missing(tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    synthesise_talk(whole, 3 / 60, Hum(), Talk(), seed=1)
    with pytest.raises(LearnError, match="hoarse"):
        synthesise_talk(again, 3 / 60, Hum(fails_after=30), Talk(), seed=1)
    n_before = len(list(again.iterdir()))
    assert 0 < n_before < 3
    assert synthesise_talk(again, 3 / 60, Hum(), Talk(), seed=1) == 3 - n_before
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}


def test_voices_that_all_belong_to_validation_are_refused(tmp_path):
    held_out = next(f"v{n}" for n in range(100) if split_by_speaker(f"hum-v{n}") != "training")
    with pytest.raises(
        TrainingError, match=r"^hum: its voices all belong to validation or testing; install more voices$"
    ):
        synthesise_talk(tmp_path, 1 / 60, Hum([held_out]), Talk(), seed=1)


def test_a_training_takes_the_files_as_speech(tmp_path, corpus_folder):
    synthesise_talk(tmp_path / "talk", 2 / 60, Hum(), Talk(), seed=1)
    corpus = find_corpus(corpus_folder, ("yes", "no"), (), (tmp_path / "talk",))
    assert {split: len(clips) for split, clips in corpus.speech.items()} == {
        "training": 2,
        "validation": 0,
        "testing": 0,
    }
