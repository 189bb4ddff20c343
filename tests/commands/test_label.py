"""`kwsd label` writes fname,label for every clip, in full or not at all; a rerun resumes."""

import csv
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kwsd.commands.label
from kwsd.cli import main
from kwsd.commands.label import label_corpus
from kwsd.core.frontend import clip_features
from kwsd.corpus.folder import Folder
from kwsd.corpus.ledger import Ledger
from kwsd.errors import AudioError, OutputError
from kwsd.sources.recording import read_recording


@pytest.fixture
def clips(tmp_path, write_wav, demo, truth):
    """A folder of words cut from the bundled recording."""
    for index, word in enumerate(truth):
        start = int(word["start_seconds"] * 16000) - 3000
        write_wav(f"clips/{'ab'[index % 2]}/clip_{index:03}.wav", demo[start : start + 16000])
    return tmp_path / "clips"


def rows(path):
    with path.open(newline="", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_the_csv_has_exactly_the_format_that_kaggle_expects(clips, tmp_path, model, truth):
    output, scores = tmp_path / "submission.csv", tmp_path / "scores.csv"
    summary = label_corpus(Folder(clips), output, model, scores)
    text = output.read_bytes()
    assert text.startswith(b"fname,label\nclip_000.wav,")
    assert b"\r" not in text
    header, *labelled = rows(output)
    assert [name for name, _ in labelled] == [f"clip_{i:03}.wav" for i in range(len(truth))]
    assert {label for _, label in labelled} <= set(model.card.labels)
    assert summary.counts.total() == len(truth)
    assert summary.unreadable == []
    header, *posteriors = rows(scores)
    assert header == ["fname", *model.card.labels]
    for (name, label), (same_name, *values) in zip(labelled, posteriors, strict=True):
        assert name == same_name
        assert model.card.labels[int(np.argmax(np.array(values, float)))] == label
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "scores.csv", "submission.csv"]


def test_the_words_of_the_recording_are_labelled(clips, tmp_path, model, truth):
    label_corpus(Folder(clips), tmp_path / "s.csv", model)
    said = [word["word"] for word in truth]
    right = [label == word for (_, label), word in zip(rows(tmp_path / "s.csv")[1:], said, strict=True)]
    keywords = [is_right for is_right, word in zip(right, said, strict=True) if word in model.card.keywords]
    assert sum(keywords) >= 8


def test_augment_averages_posteriors_over_shifts_and_gains(clips, tmp_path, model):
    label_corpus(Folder(clips), tmp_path / "plain.csv", model, tmp_path / "plain-scores.csv")
    label_corpus(Folder(clips), tmp_path / "s.csv", model, tmp_path / "scores.csv", augment=True)
    assert rows(tmp_path / "scores.csv") != rows(tmp_path / "plain-scores.csv")
    samples, rate_hz = read_recording(next(clips.rglob("clip_000.wav")))
    quiet = np.zeros(960, np.float32)  # 60 ms
    earlier, later = np.concatenate([samples[960:], quiet]), np.concatenate([quiet, samples[:-960]])
    views = [samples, earlier, later, samples * np.float32(0.5), samples * np.float32(2)]
    card = model.card
    windows = np.stack([clip_features(view, rate_hz, card.window_frames, card.frontend) for view in views])
    want = card.with_unknown_odds(model.posteriors(windows).mean(axis=0, keepdims=True))[0]
    np.testing.assert_allclose(np.array(rows(tmp_path / "scores.csv")[1][1:], float), want, atol=1e-5)


def test_unreadable_clips_are_named_and_the_others_labelled(clips, tmp_path, model, truth):
    (clips / "broken.wav").write_text("not audio")
    (clips / "empty.wav").touch()
    summary = label_corpus(Folder(clips), tmp_path / "s.csv", model)
    assert sorted(str(error).split(":")[0].split("/")[-1] for error in summary.unreadable) == [
        "broken.wav",
        "empty.wav",
    ]
    assert len(rows(tmp_path / "s.csv")) == 1 + len(truth)


def test_every_clip_is_named_if_none_can_be_read(tmp_path, model):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_text("not audio")
    summary = label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    assert [str(error).split(":")[0].split("/")[-1] for error in summary.unreadable] == ["a.wav"]
    assert rows(tmp_path / "s.csv") == [["fname", "label"]]


def test_a_link_to_itself_is_ignored(clips, tmp_path, model, truth):
    (clips / "a" / "loop").symlink_to("loop")
    summary = label_corpus(Folder(clips), tmp_path / "s.csv", model)
    assert summary.unreadable == []
    assert len(rows(tmp_path / "s.csv")) == 1 + len(truth)


def test_other_rates_and_lengths_are_labelled_too(write_wav, tmp_path, model, noise):
    write_wav("clips/a.wav", noise[:3000], 8000)
    write_wav("clips/b.WAV", np.stack([noise, noise], axis=1), 44100)
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    assert [row[0] for row in rows(tmp_path / "s.csv")] == ["fname", "a.wav", "b.WAV"]


def test_an_interrupted_run_resumes_to_the_same_labels(clips, tmp_path, model, truth, monkeypatch, capsys):
    label_corpus(Folder(clips), tmp_path / "whole.csv", model)
    monkeypatch.setattr(kwsd.commands.label, "JOB_CLIPS", 4)
    add, added = Ledger.add, []

    def interrupted(self, paths, posteriors):
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(len(paths))
        add(self, paths, posteriors)

    output = tmp_path / "s.csv"
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            label_corpus(Folder(clips), output, model)
    assert not output.exists()
    monkeypatch.setattr(Ledger, "add", lambda *arguments: (added.append(len(arguments[1])), add(*arguments)))
    monkeypatch.setattr(sys, "argv", ["kwsd", "label", str(clips), "-o", str(output)])
    assert main() == 0
    assert f"{len(truth)} clips labelled in {output}, 8 of them by an earlier run" in capsys.readouterr().out
    assert added[:2] == [4, 4]
    assert sum(added) == len(truth)
    assert output.read_text() == (tmp_path / "whole.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "s.csv", "whole.csv"]


def test_a_full_disk_leaves_no_output(clips, tmp_path, model, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Ledger, "add", full)
    with pytest.raises(OutputError, match=r"s.csv.ledger: cannot be written \(database or disk is full\)"):
        label_corpus(Folder(clips), tmp_path / "s.csv", model)
    assert not (tmp_path / "s.csv").exists()


def test_a_file_that_is_no_ledger_is_not_overwritten(clips, tmp_path, model):
    ledger = tmp_path / "s.csv.ledger"
    ledger.write_text("something else, and long enough to be looked at" * 40)
    with pytest.raises(OutputError, match=r"s.csv.ledger: cannot be resumed \(file is not a database\); remove it"):
        label_corpus(Folder(clips), tmp_path / "s.csv", model)
    assert ledger.read_text().startswith("something else")


def test_links_to_folders_are_followed_once(tmp_path, write_wav, noise, model):
    write_wav("data/a.wav", noise)
    write_wav("clips/b.wav", noise)
    (tmp_path / "clips" / "audio").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "back").symlink_to(tmp_path / "clips")  # a cycle of links
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    assert [row[0] for row in rows(tmp_path / "s.csv")[1:]] == ["a.wav", "b.wav"]


def test_two_runs_of_one_output_do_not_mix(clips, tmp_path, model):
    refused = pytest.raises(OutputError, match=r"s.csv.ledger: is in use; wait until the other run has ended")
    with Ledger(tmp_path / "s.csv.ledger", "another run's"), refused:
        label_corpus(Folder(clips), tmp_path / "s.csv", model)


def test_clips_of_another_folder_are_labelled_again(tmp_path, write_wav, noise, demo, model, monkeypatch):
    """The clips have the same names, sizes and times, as after `cp -p` or unpacking an archive."""
    for folder, samples in (("a", noise), ("b", demo[:16000])):
        path = write_wav(f"{folder}/1.wav", samples)
        os.utime(path, (0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "done", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            label_corpus(Folder(tmp_path / "a"), tmp_path / "s.csv", model, tmp_path / "p.csv")
    label_corpus(Folder(tmp_path / "b"), tmp_path / "s.csv", model, tmp_path / "p.csv")
    scores = (tmp_path / "p.csv").read_text()
    label_corpus(Folder(tmp_path / "b"), tmp_path / "s.csv", model, tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_text() == scores


@pytest.mark.parametrize("seconds", [1.3, 2.5, 6.0])
def test_a_word_anywhere_in_a_longer_recording_is_labelled(tmp_path, write_wav, demo, truth, model, seconds):
    random = np.random.default_rng(1)
    said = []
    for word in truth:
        start, end = (round(word[key] * 16000) for key in ("start_seconds", "end_seconds"))
        recording = 1e-3 * random.standard_normal(round(seconds * 16000))
        at = random.integers(0, len(recording) - (end - start))
        recording[at : at + end - start] += demo[start:end]
        write_wav(f"clips/{len(said):02}.wav", recording)
        said.append(word["word"] if word["word"] in model.card.keywords else "unknown")
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    labelled = [label for _, label in rows(tmp_path / "s.csv")[1:]]
    n_wrong = sum(label != word for label, word in zip(labelled, said, strict=True))
    assert n_wrong <= 3, (labelled, said)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core has no workers")
def test_workers_end_when_the_command_is_killed(tmp_path, write_wav, noise):
    path = write_wav("clips/0.wav", noise)
    for n in range(1, 3000):
        os.link(path, path.with_name(f"{n}.wav"))
    command = [sys.executable, "-m", "kwsd", "label", tmp_path / "clips", "-o", tmp_path / "s.csv"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        workers, n_workers = [], min(2, len(os.sched_getaffinity(0)))
        while len(workers) < n_workers and parent.poll() is None:
            workers = [pid for pid in children.read_text().split() if b"spawn_main" in _command_line(pid)]
        parent.kill()
    deadline = time.monotonic() + 20
    while any(b"spawn_main" in _command_line(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == n_workers
    assert not any(b"spawn_main" in _command_line(pid) for pid in workers)


def _command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_any_file_name_is_labelled(tmp_path, write_wav, noise, model):
    good = write_wav("clips/a b,c.wav", noise)
    good.with_name("new\nline.wav").write_bytes(good.read_bytes())
    Path(os.fsdecode(os.fsencode(good.parent) + b"/bad\xff.wav")).write_bytes(good.read_bytes())
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    names = [row[0] for row in rows(tmp_path / "s.csv")]
    assert names == ["fname", "a b,c.wav", os.fsdecode(b"bad\xff.wav"), "new\nline.wav"]


def test_only_clips_that_share_a_name_are_listed_by_path(tmp_path, write_wav, noise, model):
    for name in ("yes/1.wav", "no/1.wav", "2.wav"):
        write_wav(f"clips/{name}", noise)
    write_wav("clips/yes/3.wav", noise)
    summary = label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    assert [row[0] for row in rows(tmp_path / "s.csv")[1:]] == ["2.wav", "3.wav", "no/1.wav", "yes/1.wav"]
    [line] = summary.complaints(Folder(Path("clips")), Path("s.csv"))
    assert line == "2 clips share their names; their fname is the path in clips"


def test_clips_are_labelled_where_no_pool_can_be_made(tmp_path, write_wav, noise, model, monkeypatch):
    """Some containers and chroots have no usable /dev/shm."""

    def no_semaphores(self):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("multiprocessing.context.BaseContext.Lock", no_semaphores)
    path = write_wav("clips/0.wav", noise)
    for n in range(1, 300):
        os.link(path, path.with_name(f"{n}.wav"))
    assert label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model).counts.total() == 300


def test_a_folder_without_wavs_is_an_error(tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AudioError, match="no WAV files below it"):
        label_corpus(Folder(tmp_path / "empty"), tmp_path / "s.csv", model)
    with pytest.raises(AudioError, match="no such folder"):
        label_corpus(Folder(tmp_path / "absent"), tmp_path / "s.csv", model)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
