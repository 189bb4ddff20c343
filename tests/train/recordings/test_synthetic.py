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


def _said(talk):
    return {word.strip(".,!?").lower() for utterance in _utterances(talk) for word in utterance.split()}


def test_talk_varies_and_has_the_words_near_the_usual_keywords():
    utterances = _utterances(Talk())
    assert len(set(utterances)) > 1500
    assert {word for words in NEAR.values() for word in words} <= _said(Talk())
    assert not _said(Talk()) & {*KEYWORDS, "know", "write"}


def test_talk_avoids_keywords_with_their_plurals_and_homophones_and_has_words_near_them():
    usual = _said(Talk())
    assert {"computer", "four", "for", "ate", "apples", "cat"} <= usual | {"four"}
    said = _said(Talk(("computer", "four", "Eight", "apple", " cat"), ("commuter",)))
    assert "commuter" in said
    assert not said & {"computer", "four", "for", "ate", "apples", "cat"}


def test_a_keyword_that_is_near_another_is_not_said():
    assert "shop" in _said(Talk(("stop",)))
    assert "shop" not in _said(Talk(("stop", "shop")))


def test_the_name_of_a_folder_stands_for_words_with_spaces():
    assert any("living room" in utterance for utterance in _utterances(Talk()))
    assert not any("living room" in utterance for utterance in _utterances(Talk(("living_room",))))


@pytest.mark.parametrize("near", ["yes", "Know", "know-how", "stops"])
def test_a_near_word_that_is_a_keyword_is_refused(near):
    with pytest.raises(TrainingError, match=f"^--near {near}: has a keyword in it, or sounds like one$"):
        Talk(near=(near,))


@pytest.mark.parametrize(("words", "near", "option"), [(("a", ""), (), "--words"), (("a",), (" ", "b"), "--near")])
def test_an_empty_word_is_refused(words, near, option):
    with pytest.raises(TrainingError, match=f"^{option}: a word is empty; separate words by single commas$"):
        Talk(words, near)


def test_a_keyword_of_nearly_every_sentence_is_refused():
    with pytest.raises(TrainingError, match=r"^--words: nearly every sentence contains one of .*, the, "):
        _utterances(Talk(("the", "a", "i", "we", "and", "in", "is", "that", "what", "my", "has", "it", "at")), 2000)


def test_each_file_is_a_minute_by_a_voice_of_training(tmp_path):
    assert synthesise_talk(tmp_path, 3 / 60, Hum(), Talk(), seed=1) == 3
    paths = sorted(tmp_path.glob("*.wav"))
    assert len(paths) == 3
    for path in paths:
        assert split_by_speaker(path.stem) == "training"
        samples, rate_hz = soundfile.read(path)
        assert rate_hz == RATE_HZ
        assert 60 < len(samples) / rate_hz < 75
        assert 0.01 < np.sqrt(np.mean(samples**2)) < 0.2
        quiet = np.flatnonzero(np.convolve(samples == 0, np.ones(RATE_HZ // 10), "valid") == RATE_HZ // 10)
        assert len(quiet) > RATE_HZ  # there are pauses


def test_an_interrupted_run_continues_with_the_files_that_are_missing(tmp_path):
    whole, again = tmp_path / "whole", tmp_path / "again"
    synthesise_talk(whole, 3 / 60, Hum(), Talk(), seed=1)
    with pytest.raises(LearnError, match="hoarse"):
        synthesise_talk(again, 3 / 60, Hum(fails_after=30), Talk(), seed=1)
    n_before = len(list(again.glob("*.wav")))
    assert 0 < n_before < 3
    assert synthesise_talk(again, 3 / 60, Hum(), Talk(), seed=1) == 3 - n_before
    assert {p.name: p.read_bytes() for p in whole.iterdir()} == {p.name: p.read_bytes() for p in again.iterdir()}


@pytest.mark.parametrize(("words", "seed", "differing"), [(("no",), 1, "words"), (KEYWORDS, 2, "seed")])
def test_a_folder_of_other_talk_is_refused(tmp_path, words, seed, differing):
    synthesise_talk(tmp_path, 1 / 60, Hum(), Talk(), seed=1)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TrainingError, match=rf"holds other talk \(different {differing}\); name another folder"):
        synthesise_talk(tmp_path, 1 / 60, Hum(), Talk(words), seed)
    assert sorted(tmp_path.iterdir()) == before
    assert synthesise_talk(tmp_path, 2 / 60, Hum(), Talk(), seed=1) == 1


def test_a_part_of_a_minute_is_a_minute(tmp_path):
    assert synthesise_talk(tmp_path, 1e-4, Hum(), Talk(), seed=1) == 1


def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "talk").write_text("notes")
    with pytest.raises(TrainingError, match=r"talk: is a file; name a folder$"):
        synthesise_talk(tmp_path / "talk", 1, Hum(), Talk(), seed=1)


def test_voices_of_validation_and_testing_do_not_speak(tmp_path):
    voices = [f"v{n}" for n in range(100)]
    split_of = {f"hum-{voice}": split_by_speaker(f"hum-{voice}") for voice in voices}
    assert set(split_of.values()) == {"training", "validation", "testing"}
    synthesise_talk(tmp_path, 10 / 60, Hum(voices), Talk(), seed=1)
    assert {split_of[path.name.partition("_nohash_")[0]] for path in tmp_path.glob("*.wav")} == {"training"}
    held_out = next(voice for voice in voices if split_of[f"hum-{voice}"] == "testing")
    with pytest.raises(TrainingError, match=r"^hum: its voices all belong to validation or testing; install more"):
        synthesise_talk(tmp_path / "more", 1 / 60, Hum([held_out]), Talk(), seed=1)


def test_a_training_takes_the_files_as_speech(tmp_path, corpus_folder):
    synthesise_talk(tmp_path / "talk", 2 / 60, Hum(), Talk(), seed=1)
    corpus = find_corpus(corpus_folder, ("yes", "no"), (), (tmp_path / "talk",))
    assert {split: len(clips) for split, clips in corpus.speech.items()} == {
        "training": 2,
        "validation": 0,
        "testing": 0,
    }
