"""Recordings of a split on disk, and the positions of their words."""

import os
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from kwsd.errors import TrainingError
from kwsd.learn.takes import word_edges
from train.recordings.corpus import find_corpus, read_samples
from train.recordings.material import gather


@pytest.fixture
def corpus(corpus_folder):
    return find_corpus(corpus_folder, ("yes", "no"))


def test_every_recording_is_read_back_unchanged(corpus, tmp_path):
    material = gather(corpus, "training", tmp_path)
    assert material.words == ("yes", "no", "silence", "unknown", "tree")
    assert len(material.keywords[0]) == len(material.keywords[1]) == len(material.others)
    clips = corpus.clips["training"]
    for index in (0, 5, len(clips) - 1):
        want = read_samples(clips[index])
        np.testing.assert_array_equal(material.samples(index), want.astype(np.float32) / 32768)
        assert material.words[material.word_of[index]] == clips[index].path.parent.name
    assert len(material.noises) == 1
    assert material.lengths[material.noises[0]] < 12 * 16000  # only this split's part


@pytest.mark.parametrize("subtype", ["PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_samples_are_equal_in_every_format(corpus, tmp_path, subtype):
    clip = corpus.clips["training"][0]
    samples, rate_hz = soundfile.read(clip.path)
    other = tmp_path / "clip.wav"
    soundfile.write(other, samples, rate_hz, subtype=subtype)
    np.testing.assert_array_equal(read_samples(replace(clip, path=other)), read_samples(clip))


@pytest.mark.parametrize(("constant", "last_bit"), [(0, 0), (0, 1), (-500, 0)])
def test_silent_recordings_are_named_and_left_out(corpus_folder, tmp_path, capsys, constant, last_bit):
    data = shutil.copytree(corpus_folder, tmp_path / "data")
    silent = [next((data / word).glob("*.wav")) for word in ("yes", "tree")]
    for path in silent:
        noise = np.random.default_rng(0).integers(-last_bit, last_bit, 16000, endpoint=True)
        soundfile.write(path, (constant + noise).astype("<i2"), 16000)
    silent_corpus = find_corpus(data, ("yes", "no"))
    materials = [gather(silent_corpus, split, tmp_path / "cache") for split in ("training", "validation", "testing")]
    assert sum(len(one.keywords[0]) for one in materials) == 39
    assert sum(len(one.others) for one in materials) == 39
    said = capsys.readouterr().err
    assert "left out of scenes, because they hold only silence: " in said
    assert all(str(path) in said for path in silent)


def test_a_recording_from_a_pipe_is_read(corpus, tmp_path):
    clip = corpus.clips["training"][0]
    data = bytearray(clip.path.read_bytes())
    data[4:8] = data[40:44] = bytes(4)
    other = tmp_path / "clip.wav"
    other.write_bytes(data)
    np.testing.assert_array_equal(read_samples(replace(clip, path=other)), read_samples(clip))


def test_recordings_are_collected_only_once(corpus, tmp_path):
    gather(corpus, "validation", tmp_path)
    [path] = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    gather(corpus, "validation", tmp_path)
    assert [one.stat().st_mtime_ns for one in tmp_path.iterdir()] == [written]


@pytest.mark.parametrize("level", [0.0, 0.005])
def test_the_edges_of_a_word_are_found_in_noise(level):
    random = np.random.default_rng(0)
    samples = level * random.standard_normal(16000)
    samples[5000:9800] += 0.2 * np.sin(np.arange(4800) / 3)
    samples[11000:11800] += 0.1 * np.sin(np.arange(800) / 3)  # after a stop consonant's closure
    samples[15500:] += 0.3  # another sound, 230 ms later
    samples[15500:] -= 0.25
    onset, end = word_edges((samples * 32767).astype(np.int16))
    assert onset == pytest.approx(5000, abs=330)
    assert end == pytest.approx(11800, abs=330)


def test_a_loud_click_is_not_taken_for_the_word():
    random = np.random.default_rng(0)
    samples = 0.0005 * random.standard_normal(16000)
    samples[:400] += 0.5 * random.standard_normal(400)  # the recorder's button
    samples[8000:12800] += 0.1 * np.sin(np.arange(4800) / 3)
    onset, end = word_edges((np.clip(samples, -1, 1) * 32767).astype(np.int16))
    assert (onset, end) == (pytest.approx(8000, abs=330), pytest.approx(12800, abs=330))


def test_a_soft_hiss_at_the_end_is_part_of_the_word():
    random = np.random.default_rng(0)
    samples = 0.0005 * random.standard_normal(16000)
    samples[4000:8000] += 0.3 * np.sin(np.arange(4000) / 12)  # 210 Hz
    samples[8000:11200] += 0.02 * np.diff(random.standard_normal(3201))  # 30 dB softer, and high
    onset, end = word_edges((samples * 32767).astype(np.int16))
    assert (onset, end) == (pytest.approx(4000, abs=330), pytest.approx(11200, abs=330))


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_is_an_error_and_leaves_no_files(corpus, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        with pytest.raises(OSError, match="No space left"):
            gather(corpus, "training", tmp_path)
        assert not list(tmp_path.iterdir())
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_silence_and_very_short_recordings_have_edges_too():
    assert word_edges(np.zeros(16000, np.int16)) == (0, 16000)
    assert word_edges(np.ones(100, np.int16)) == (0, 100)


def test_a_single_speaker_gets_advice(corpus_folder, tmp_path):
    data = shutil.copytree(corpus_folder, tmp_path / "data")
    for word in ("yes", "no", "tree"):
        for n, path in enumerate(sorted((data / word).glob("*.wav"))):
            path.rename(path.with_name(f"me_nohash_{n}.wav"))
    mine = find_corpus(data, ("yes", "no"))
    [own] = [split for split, clips in mine.clips.items() if clips]
    other = next(split for split in mine.clips if split != own)
    with pytest.raises(TrainingError, match="no recording of yes, no; splits are by speaker; add some, or remove"):
        gather(mine, other, tmp_path)
