"""Marks: kept clips teach a word, and what it must not be confused with."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kwsd.core.model import load_model
from kwsd.errors import LearnError
from kwsd.marks import mark, marked_in
from learn.voice import write_takes
from support import kwsd

OTHER = ((300, 800), (700, 1200), (300, 2200))


def keep(folder, label, n, formants):
    """Clips as the daemon keeps them."""
    paths = write_takes(folder, n, formants)
    for number, path in enumerate(paths):
        kept = path.with_name(f"{label}-{number}.wav")
        path.rename(kept)
        kept.with_suffix(".json").write_text(json.dumps({"type": "detection", "label": label, "score": 0.9}))
        yield kept


def test_a_mark_stands_in_the_event_beside_a_clip(tmp_path):
    first, second, third, _ = keep(tmp_path, "stop", 4, OTHER)
    assert [mark(first, "right").said, mark(second, "wrong").said, mark(third, "waio").said] == ["stop", "", "waio"]
    assert json.loads(first.with_suffix(".json").read_text())["score"] == 0.9
    assert [(one.path, one.said) for one in marked_in(tmp_path)] == [(first, "stop"), (second, ""), (third, "waio")]


def test_what_cannot_be_marked_is_named(tmp_path):
    soundfile.write(tmp_path / "mine.wav", np.zeros(16000), 16000)
    with pytest.raises(LearnError, match=r"mine\.json: No such file or directory; a clip that kwsd kept has its event"):
        mark(tmp_path / "mine.wav", "right")
    with pytest.raises(LearnError, match=r"\.: not a clip; name its WAV file"):
        mark(Path(), "right")
    with pytest.raises(LearnError, match="no clip is marked; `kwsd mark CLIP right` or `wrong` does it"):
        marked_in(tmp_path)
    (tmp_path / "mine.json").write_text("[]")
    with pytest.raises(LearnError, match="not the event of a clip"):
        mark(tmp_path / "mine.wav", "right")


def test_a_word_is_learnt_from_marked_clips(tmp_path):
    said = list(keep(tmp_path / "clips", "go", 4, ((700, 1100), (300, 2300), (450, 800))))
    wrong = list(keep(tmp_path / "clips", "no", 2, OTHER))
    result = kwsd("mark", "waio", *said)
    assert result.stdout.splitlines()[0] == f"{said[0]}: heard go, said waio"
    assert kwsd("mark", "wrong", *wrong).stdout.endswith(f"{wrong[1]}: heard no, said nothing\n")
    result = kwsd("learn", "--from", tmp_path / "clips", "-o", tmp_path / "home.onnx")
    assert result.returncode == 0, result.stderr
    assert "waio: learnt from 4 recordings" in result.stdout
    assert load_model(tmp_path / "home.onnx", "cpu").card.labels[-1] == "waio"
