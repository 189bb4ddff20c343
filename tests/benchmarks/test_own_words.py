"""The benchmark of learnt words: who is unseen, and where the peer's thresholds lie."""

from pathlib import Path

import numpy as np

from benchmarks.local_wake import _missed
from benchmarks.own_words import _recordings, _unseen


def test_no_speaker_is_on_both_sides():
    paths = [Path(name) for name in ("a_nohash_0.wav", "b_nohash_0.wav", "a_nohash_1.wav", "c.wav", "d.wav")]
    assert _unseen(paths, np.array([0, 3, 1, 2, 4]), 2) == [1, 4]


def test_only_listed_recordings_count(tmp_path):
    (tmp_path / "zero").mkdir()
    for name in ("a_nohash_0.wav", "b_nohash_0.wav"):
        (tmp_path / "zero" / name).touch()
    assert len(_recordings(tmp_path, "zero")) == 2
    (tmp_path / "validation_list.txt").write_text("zero/b_nohash_0.wav\n")
    assert _recordings(tmp_path, "zero") == [tmp_path / "zero" / "b_nohash_0.wav"]


def test_the_peer_stays_silent_at_the_first_false_event_above_its_budget():
    nearest = np.array([[0.1, 0.2], [0.15, 0.3]])
    missed = _missed(nearest, [0.12, 0.25, 0.4], hours=1.2, budgets=(0.5, 1.0))
    assert missed.tolist() == [[1, 2], [0, 1]]
