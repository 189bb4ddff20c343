"""Each speaker is in only one split. Errors in the recordings are reported in one line."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
import soundfile

from kwsd.errors import KwsdError, TrainingError
from train.recordings.corpus import balanced, find_corpus, read_clip, silence, split_by_speaker
from train.recordings.material import gather

KEYWORDS = ("yes", "no")


@pytest.fixture
def corpus(corpus_folder):
    return find_corpus(corpus_folder, KEYWORDS)


@pytest.fixture
def copy(corpus_folder, tmp_path):
    """A copy of the corpus that a test may damage."""
    return shutil.copytree(corpus_folder, tmp_path / "copy")


def speakers(clips):
    return {clip.path.name.split("_nohash_")[0] for clip in clips}


def test_no_speaker_is_in_two_splits(corpus):
    training, validation, testing = (speakers(corpus.clips[split]) for split in ("training", "validation", "testing"))
    assert training
    assert validation
    assert testing
    assert not training & validation
    assert not training & testing
    assert not validation & testing


def test_splits_follow_the_official_hash():
    """Names and splits as the official README's `which_set` gives them."""
    assert split_by_speaker("0a7c2a8d_nohash_0.wav") == split_by_speaker("0a7c2a8d_nohash_7.wav")
    shares = Counter(split_by_speaker(f"{n:08x}_nohash_0.wav") for n in range(20000))
    known = {"067f61e2_nohash_2.wav": "validation", "bb05582b_nohash_3.wav": "testing"}  # from the official lists
    assert {name: split_by_speaker(name) for name in known} == known
    assert shares["validation"] / 20000 == pytest.approx(0.1, abs=0.01)
    assert shares["testing"] / 20000 == pytest.approx(0.1, abs=0.01)


def test_the_official_lists_override_the_hash(copy):
    (copy / "validation_list.txt").write_text(f"yes/{'0' * 8}_nohash_0.wav\n")
    (copy / "testing_list.txt").write_text(f"no/{'0' * 7}1_nohash_0.wav\n")
    corpus = find_corpus(copy, KEYWORDS)
    listed = {split: [clip for clip in clips if clip.label in KEYWORDS] for split, clips in corpus.clips.items()}
    assert {split: len(clips) for split, clips in listed.items()} == {"training": 78, "validation": 1, "testing": 1}


def test_a_custom_word_beside_the_official_data_is_split_by_speaker(copy):
    (copy / "validation_list.txt").write_text(f"yes/{'0' * 8}_nohash_0.wav\n")
    own = {clip.path: split for split, clips in find_corpus(copy, KEYWORDS).clips.items() for clip in clips}
    splits = {split for path, split in own.items() if path.parent.name == "tree"}
    assert splits == {"training", "validation", "testing"}
    assert all(split == split_by_speaker(path.name) for path, split in own.items() if path.parent.name == "tree")


def test_kaggles_layout_is_found_from_its_top_folder(copy, tmp_path):
    (tmp_path / "kaggle" / "train").mkdir(parents=True)
    copy.rename(tmp_path / "kaggle" / "train" / "audio")
    (tmp_path / "kaggle" / "train" / "validation_list.txt").write_text(f"yes/{'0' * 8}_nohash_0.wav\n")
    corpus = find_corpus(tmp_path / "kaggle", KEYWORDS)
    assert [clip.label for clip in corpus.clips["validation"]].count("yes") == 1


def test_other_words_are_unknown_and_do_not_outnumber_the_keywords(corpus):
    clips = balanced(corpus, "validation", np.random.default_rng(0))
    counts = Counter(clip.label for clip in clips)
    assert counts["silence"] == counts["unknown"] == round((counts["yes"] + counts["no"]) / 2)
    assert {clip.path.parent.name for clip in clips if clip.label == "unknown"} == {"tree"}


@pytest.mark.parametrize("seconds", [3, 5, 60])
def test_silence_is_cut_from_the_splits_part_of_the_noise_at_random_volume(copy, seconds):
    hiss = copy / "_background_noise_" / "hiss.wav"
    soundfile.write(hiss, 0.1 * np.random.default_rng(0).standard_normal(16000 * seconds), 16000)
    corpus = find_corpus(copy, KEYWORDS)
    places = {}
    for split in ("training", "validation", "testing"):
        cuts = silence(corpus, split, 50, np.random.default_rng(0))
        places[split] = (min(cut.start for cut in cuts), max(cut.start + cut.n_samples for cut in cuts))
        levels = [float(np.sqrt(np.mean(read_clip(cut) ** 2))) for cut in cuts]
        assert max(levels) > 10 * min(levels)
    assert places["training"][1] <= places["validation"][0]
    assert places["validation"][1] <= places["testing"][0]
    assert places["testing"][1] <= 16000 * seconds


def test_speech_without_keywords_is_split_by_reader(corpus_folder, tmp_path):
    for reader in range(60):
        soundfile.write(tmp_path / f"{reader}.wav", np.zeros(48000), 16000)
    corpus = find_corpus(corpus_folder, KEYWORDS, speech=(tmp_path,))
    readers = {split: {clip.path.stem for clip in clips} for split, clips in corpus.speech.items()}
    assert sum(map(len, readers.values())) == 60
    assert all(readers.values())
    for split, names in readers.items():
        assert {split_by_speaker(name) for name in names} == {split}


def test_the_digest_depends_on_the_recordings(corpus, copy):
    assert find_corpus(copy, KEYWORDS).files_digest() == corpus.files_digest()
    next((copy / "yes").glob("*.wav")).unlink()
    assert find_corpus(copy, KEYWORDS).files_digest() != corpus.files_digest()


def test_errors_in_the_recordings_are_reported_in_one_line(copy, tmp_path):
    def refused(reason, folder=copy, words=KEYWORDS, **options):
        with pytest.raises(KwsdError, match=reason) as raised:
            find_corpus(folder, words, **options)
        assert "\n" not in str(raised.value)

    refused("no recordings found", tmp_path / "absent")
    refused("no folder for marvin; there are no, tree, yes", words=("yes", "marvin"))
    refused("absent: no such folder", noise=(tmp_path / "absent",))
    (tmp_path / "empty").mkdir()
    refused("empty: no WAV files below it", speech=(tmp_path / "empty",))
    refused("--words: a word is empty", words=("yes", ""))
    refused("--words: unknown is the name of a built-in label", words=("yes", "unknown"))
    soundfile.write(copy / "no" / "x_nohash_0.wav", np.zeros(8000), 8000)
    refused(r"x_nohash_0.wav: 8000 Hz with 1 channels, expected 16000 Hz mono")
    (copy / "no" / "x_nohash_0.wav").write_text("not audio")
    refused("x_nohash_0.wav: not a readable recording")


def test_an_empty_split_and_too_short_noise_are_errors(copy):
    (copy / "validation_list.txt").write_text("".join(f"{word}/{'0' * 8}_nohash_0.wav\n" for word in KEYWORDS))
    with pytest.raises(TrainingError, match="no recordings for the testing split"):
        balanced(find_corpus(copy, KEYWORDS), "testing", np.random.default_rng(0))
    noises = list((copy / "_background_noise_").glob("*.wav"))
    assert noises
    for noise in noises:
        soundfile.write(noise, np.zeros(40000), 16000)
    for split in ("validation", "training"):
        with pytest.raises(TrainingError, match="no noise recordings of at least 3 s"):
            silence(find_corpus(copy, KEYWORDS), split, 5, np.random.default_rng(0))


def test_any_file_name_that_ends_like_a_wav_counts_except_a_macs(copy, tmp_path):
    loud, strange = copy / "yes" / "0_nohash_0.WAV", copy / "yes" / os.fsdecode(b"\xff_nohash_0.wav")
    for path in (loud, strange):
        shutil.copy(next((copy / "yes").glob("*.wav")), path)
    (copy / "yes" / "._0_nohash_0.wav").write_bytes(b"Mac OS X")
    (copy / "yes" / "folder_nohash_0.wav").mkdir()
    found = find_corpus(copy, ("yes", "no"))
    paths = {clip.path for clips in found.clips.values() for clip in clips}
    assert {loud, strange} <= paths
    assert len(found.files_digest()) == 64
    for split in found.clips:
        gather(found, split, tmp_path / "cache")


def test_a_list_may_name_any_file(copy):
    strange = copy / "yes" / os.fsdecode(b"\xff_nohash_0.wav")
    shutil.copy(next((copy / "yes").glob("*.wav")), strange)
    (copy / "testing_list.txt").write_bytes(b"yes/\xff_nohash_0.wav\n")
    assert strange in {clip.path for clip in find_corpus(copy, ("yes", "no")).clips["testing"]}
