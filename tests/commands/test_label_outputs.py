"""Where `kwsd label` writes, and what it does not overwrite."""

from pathlib import Path

import numpy as np
import pytest

from kwsd.commands.label import label_corpus, spot_corpus
from kwsd.corpus.folder import Folder
from kwsd.errors import OutputError


@pytest.fixture
def clips(tmp_path, write_wav, noise):
    for n in range(3):
        write_wav(f"clips/clip_{n}.wav", np.roll(noise, 1000 * n))
    return tmp_path / "clips"


def test_a_missing_output_folder_is_reported_before_the_work(clips, tmp_path, model):
    with pytest.raises(OutputError, match=r"absent/s.csv: cannot be written; its folder"):
        label_corpus(Folder(clips), tmp_path / "absent" / "s.csv", model)


def test_only_an_earlier_output_is_overwritten(clips, tmp_path, model):
    clip = next(clips.rglob("*.wav"))
    before = clip.read_bytes()
    notes = tmp_path / "notes.csv"
    notes.write_text("milk, bread")
    truth = tmp_path / "truth.csv"
    truth.write_text("fname,label,verified\nclip_0.wav,yes,1\n")
    for output, scores, reason in (
        (clip, None, "is no table that this command wrote; name another file"),
        (truth, None, "is no table"),
        (tmp_path / "s.csv", tmp_path / "p.parquet", "scores are CSV"),
        (notes, None, "is no table"),
        (tmp_path / "s.csv", notes, "is no table"),
        (Path("s3://bucket/s.csv"), None, "^s3://bucket/s.csv: results are written to this machine"),
        (clips, None, "is not a file"),
        (tmp_path / "s.csv", clips, "is not a file"),
        (tmp_path / "s.csv", tmp_path / "absent" / "p.csv", "cannot be written"),
        (tmp_path / "s.csv", tmp_path / "clips" / ".." / "s.csv", "is used for the labels"),
        (tmp_path / "s.csv", tmp_path / "s.csv.ledger", "is used for the labels"),
        (tmp_path / "s.csv", tmp_path / ".kwsd-part-s.csv", "is used for the labels"),
    ):
        with pytest.raises(OutputError, match=reason):
            label_corpus(Folder(clips), output, model, scores)
    assert clip.read_bytes() == before
    assert notes.read_text() == "milk, bread"
    assert not (tmp_path / "s.csv").exists()


def test_only_a_table_of_the_same_kind_is_overwritten(clips, tmp_path, model):
    output, scores = tmp_path / "s.csv", tmp_path / "p.csv"
    for _ in range(2):
        label_corpus(Folder(clips), output, model, scores)
    before = output.read_text(), scores.read_text()
    for attempt in (
        lambda: label_corpus(Folder(clips), scores, model),
        lambda: label_corpus(Folder(clips), tmp_path / "new.csv", model, output),
        lambda: spot_corpus(Folder(clips), output, model),
    ):
        with pytest.raises(OutputError, match="is no table that this command wrote"):
            attempt()
    assert (output.read_text(), scores.read_text()) == before


def test_an_output_that_is_a_link_stays_one(clips, tmp_path, model):
    (tmp_path / "store").mkdir()
    (tmp_path / "s.csv").symlink_to(tmp_path / "store" / "real.csv")
    label_corpus(Folder(clips), tmp_path / "s.csv", model)
    assert (tmp_path / "s.csv").is_symlink()
    assert (tmp_path / "store" / "real.csv").read_text().startswith("fname,label\n")
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["real.csv"]
