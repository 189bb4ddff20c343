"""`kwsd label --spot` finds in a folder what `kwsd spot` finds in each recording."""

import csv

import numpy as np
import pytest

from kwsd.commands.label import spot_corpus
from kwsd.commands.spot import spot
from kwsd.config import Config
from kwsd.corpus.folder import Folder
from kwsd.errors import AudioError
from support import DEMO, kwsd


@pytest.fixture
def archive(tmp_path, write_wav, demo):
    """Recordings of 20 to 120 s, one with another rate, one of silence."""
    for n in range(6):
        write_wav(f"archive/{n}.wav", np.roll(np.tile(demo, 1 + n % 3), 16000 * n))
    write_wav("archive/below/fast.wav", np.repeat(demo, 3), 48000)
    write_wav("archive/silent.wav", np.zeros(16000 * 20))
    return tmp_path / "archive"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_detections_are_those_of_kwsd_spot(archive, tmp_path, model):
    summary = spot_corpus(Folder(archive), tmp_path / "found.csv", model)
    found = {}
    for row in rows(tmp_path / "found.csv"):
        found.setdefault(row["fname"], []).append((row["label"], float(row["end_seconds"])))
    for path in archive.rglob("*.wav"):
        wanted = [(event.label, event.end_seconds) for event in spot(path, model, Config())]
        assert found.get(path.name, []) == wanted
    assert summary.counts.total() == sum(map(len, found.values())) >= 90
    assert "silent.wav" not in found
    assert not list(tmp_path.glob("*.ledger"))


def test_an_unreadable_recording_is_named_and_the_others_are_searched(archive, tmp_path):
    (archive / "broken.wav").write_bytes(b"RIFF")
    result = kwsd("label", archive, "-o", tmp_path / "found.csv", "--spot")
    assert result.returncode == 1
    assert "broken.wav" in result.stderr
    assert "detections in" in result.stdout
    assert len({row["fname"] for row in rows(tmp_path / "found.csv")}) == 7


def test_an_interrupted_search_continues_with_what_is_missing(archive, tmp_path, model, monkeypatch):
    import kwsd.commands.jobs as jobs

    searched = []
    real = jobs.spot
    monkeypatch.setattr(jobs, "_can_use_processes", lambda: False)

    def interrupted(path, *rest):
        if len(searched) == 3:
            raise KeyboardInterrupt
        searched.append(path.name)
        return real(path, *rest)

    monkeypatch.setattr(jobs, "spot", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spot_corpus(Folder(archive), tmp_path / "found.csv", model)
    assert not (tmp_path / "found.csv").exists()
    searched.clear()
    monkeypatch.setattr(jobs, "spot", lambda path, *rest: (searched.append(path.name), real(path, *rest))[1])
    spot_corpus(Folder(archive), tmp_path / "found.csv", model)
    assert len(searched) == 8 - 2  # a job of two recordings was finished
    assert len({row["fname"] for row in rows(tmp_path / "found.csv")}) == 7


def test_labels_and_detections_share_no_ledger(tmp_path, model, write_wav, demo, monkeypatch):
    import kwsd.commands.label as label

    def interrupted(*_):
        raise KeyboardInterrupt

    write_wav("clips/a.wav", demo[: 16000 * 5])
    with monkeypatch.context() as patched:
        patched.setattr(label, "write_labels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            label.label_corpus(Folder(tmp_path / "clips"), tmp_path / "one.csv", model)
    assert (tmp_path / "one.csv.ledger").exists()
    spot_corpus(Folder(tmp_path / "clips"), tmp_path / "one.csv", model)
    assert [row["label"] for row in rows(tmp_path / "one.csv")] == ["down"]


def test_what_does_not_fit_together_is_refused(tmp_path, model):
    result = kwsd("label", DEMO.parent, "-o", tmp_path / "x.csv", "--spot", "--augment")
    assert (result.returncode, result.stderr) == (
        2, "kwsd: --spot: has detections only; leave out --scores and --augment\n",
    )  # fmt: skip
    with pytest.raises(AudioError, match="no such folder"):
        spot_corpus(Folder(tmp_path / "none"), tmp_path / "x.csv", model)
