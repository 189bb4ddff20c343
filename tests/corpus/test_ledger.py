"""The ledger keeps finished clips when folders disappear or cannot be read."""

import errno
import os
import shutil

import numpy as np

from kwsd.commands.label import label_corpus
from kwsd.corpus.folder import Folder
from kwsd.corpus.ledger import Ledger


def find(ledger, folder):
    unlisted = []
    return ledger.find(Folder(folder).find(unlisted), unlisted), unlisted


def test_changed_clips_are_labelled_again(tmp_path, write_wav, noise):
    def stock(maker):
        with Ledger(tmp_path / "ledger", maker) as ledger:
            assert find(ledger, tmp_path / "clips") == (3, [])
            missing = [clip.path for batch in ledger.missing(2) for clip in batch]
            ledger.add(missing, np.zeros((len(missing), 3), np.float32))
            assert not list(ledger.missing(2))
            return [os.fsdecode(path) for path in missing], [row.fname for row in ledger.done()]

    for name in "abc":
        write_wav(f"clips/{name}.wav", noise)
    assert stock("model 1") == (["a.wav", "b.wav", "c.wav"], ["a.wav", "b.wav", "c.wav"])
    write_wav("clips/b.wav", noise[:100])
    write_wav("clips/d.wav", noise)
    (tmp_path / "clips" / "c.wav").unlink()
    assert stock("model 1") == (["b.wav", "d.wav"], ["a.wav", "b.wav", "d.wav"])
    assert stock("model 2") == (["a.wav", "b.wav", "d.wav"], ["a.wav", "b.wav", "d.wav"])


def half_done(path, folder):
    """Write the ledger of an interrupted run with one finished clip; returns the number of clips."""
    with Ledger(path, "model") as ledger:
        n_clips, _ = find(ledger, folder)
        ledger.add([next(ledger.missing(1))[0].path], np.zeros((1, 3), np.float32))
        return n_clips


def test_an_unmounted_folder_loses_no_finished_clips(tmp_path, write_wav, noise, model):
    for name in "abc":
        write_wav(f"clips/{name}.wav", noise)
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "whole.csv", model)
    half_done(tmp_path / "ledger", tmp_path / "clips")
    (tmp_path / "clips").rename(tmp_path / "away")
    (tmp_path / "clips").mkdir()  # the empty mount point
    with Ledger(tmp_path / "ledger", "model") as ledger:
        assert find(ledger, tmp_path / "clips") == (0, [])
        assert ledger.counts() == (3, 1)


def test_clips_below_an_unreadable_folder_are_kept(tmp_path, write_wav, noise, monkeypatch):
    for name in ("a/1", "a/2", "ab/3"):
        write_wav(f"clips/{name}.wav", noise)
    assert half_done(tmp_path / "ledger", tmp_path / "clips") == 3
    shutil.rmtree(tmp_path / "clips" / "ab")
    scandir = os.scandir

    def no_access(path):
        if path.endswith(b"/a"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    write_wav("clips/4.wav", noise)
    monkeypatch.setattr("kwsd.corpus.folder.os.scandir", no_access)
    with Ledger(tmp_path / "ledger", "model") as ledger:
        n_clips, unlisted = find(ledger, tmp_path / "clips")
        assert n_clips == 1
        assert ledger.counts() == (4, 1)  # nothing is forgotten, also not ab/3, which was deleted
    assert [str(error).rpartition(": ")[2] for error in unlisted] == ["Permission denied"]
