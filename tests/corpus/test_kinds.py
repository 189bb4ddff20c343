"""Every kind of corpus has the same clips, and the same labels."""

import csv
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import soundfile

from corpora import labelled, write_table
from kwsd.commands.label import label_corpus, spot_corpus
from kwsd.corpus.folder import Folder
from kwsd.corpus.open import open_corpus


@pytest.mark.parametrize(
    "sources",
    [
        ["clips/*.wav"],
        ["clips/../**/clip_*.wav"],
        [f"clips/clip_{n:02}.wav" for n in range(20)],
        ["list.txt"],
        ["shard-*.tar"],
        ["shard-0.tar", "shard-1.tar"],
        ["audio.parquet"],
        ["bytes.parquet"],
        ["paths.parquet"],
    ],
    ids=lambda sources: sources[0],
)
def test_every_kind_of_corpus_has_the_labels_of_the_folder(here, model, sources):
    wanted = labelled("clips", model=model)
    assert wanted.count("\n") == 21
    assert labelled(*sources, model=model) == wanted
    assert not list(here.glob("*.ledger"))


def test_remote_clips_have_the_labels_of_the_folder(here, memory, model):
    for path in sorted(here.iterdir()):
        memory.put(str(path), f"/{path.name}", recursive=path.is_dir())
    wanted = labelled("clips", model=model)
    sources = ["clips", "clips/clip_*.wav", "shard-*.tar", "audio.parquet", "list.txt", "paths.parquet"]
    for source in sources:
        assert labelled(f"memory://{source}", model=model) == wanted, source


def test_parquet_has_all_posteriors_and_seconds(here, model, write_wav, noise):
    write_wav("clips/long.wav", noise[:24000])
    corpus = open_corpus(["clips"])
    label_corpus(corpus, Path("out.csv"), model, Path("scores.csv"))
    label_corpus(corpus, Path("out.parquet"), model)
    table = pyarrow.parquet.read_table("out.parquet")
    assert table.column_names == ["path", "label", "score", "posteriors", "seconds"]
    with Path("out.csv").open(newline="") as file:
        labels = [tuple(row) for row in csv.reader(file)][1:]
    assert [(row["path"], row["label"]) for row in table.to_pylist()] == labels
    scores = np.loadtxt("scores.csv", np.float32, delimiter=",", skiprows=1, usecols=range(1, 13))
    np.testing.assert_array_equal(np.array(table["posteriors"].to_pylist(), np.float32), scores)
    np.testing.assert_array_equal(table["score"].to_numpy(), scores.max(axis=1))
    assert table["seconds"].to_pylist() == [1.0] * 20 + [1.5]


def test_detections_in_parquet_are_those_in_csv(here, model, demo):
    soundfile.write("whole.wav", demo, 16000, subtype="PCM_16")
    with tarfile.open("whole.tar", "w") as tar:
        tar.add("whole.wav")
    spot_corpus(open_corpus(["whole.wav"]), Path("found.csv"), model)
    spot_corpus(open_corpus(["whole.tar"]), Path("found.parquet"), model)
    rows = pyarrow.parquet.read_table("found.parquet").to_pylist()
    with Path("found.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["label"], f"{row['end_seconds']:.3f}") for row in rows] == [
        (row["label"], row["end_seconds"]) for row in found
    ]
    assert len(rows) >= 8
    assert {row["path"] for row in rows} == {"whole.tar/whole.wav"}


def test_a_missing_list_costs_only_its_own_clips(here, model):
    corpus, output = open_corpus(["list.txt", "missing.txt"]), Path("out.csv")
    summary = label_corpus(corpus, output, model)
    assert [str(error) for error in summary.unreadable] == ["missing.txt: no such file"]
    assert len(output.read_text().splitlines()) > 2


def test_clips_of_several_tars_that_share_a_name_are_listed_by_their_paths(here, model):
    os.link("shard-0.tar", "again.tar")
    names = [line.split(",")[0] for line in labelled("shard-0.tar", "again.tar", model=model).splitlines()[1:]]
    assert names == [f"{tar}.tar/clip_{n:02}.wav" for tar in ("again", "shard-0") for n in range(11)]


def test_an_interrupted_run_continues_and_a_changed_tar_is_read_again(here, model, monkeypatch):
    import kwsd.commands.label as label

    monkeypatch.setattr(label, "JOB_CLIPS", 4)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(label, "write_labels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            labelled("shard-*.tar", model=model)
    with tarfile.open("shard-1.tar", "a") as tar:
        tar.add("clips/clip_00.wav", "clip_20.wav")
    corpus = open_corpus(["shard-*.tar"])
    summary = label_corpus(corpus, Path("out.csv"), model)
    written = Path("out.csv").read_text()
    assert (summary.n_before, summary.counts.total()) == (11, 21)
    assert written.count("\n") == 22


def test_paths_in_a_list_begin_at_its_folder(here, model):
    Path("lists").mkdir()
    Path("list.txt").rename("lists/list.txt")
    Path("clips").rename("lists/clips")
    assert labelled("lists/list.txt", model=model).count("\n") == 21


def test_the_file_name_of_a_signed_address_has_no_signature(here):
    url = f"https://host/clips/a.wav?X-Signature={'0' * 300}"
    Path("signed.txt").write_text(f"{url}\n")
    [found] = open_corpus(["signed.txt"]).find([])
    assert (found.name, found.clip.path) == (b"a.wav", url.encode())


def test_another_column_is_another_corpus(here):
    write_table("two.parquet", {"near": [b"1"], "far": [b"2"]})
    assert open_corpus(["two.parquet"], "near").identity != open_corpus(["two.parquet"], "far").identity


def test_hidden_files_of_a_mac_are_no_clips(here, model):
    with tarfile.open("mac.tar", "w") as tar:
        tar.add("clips/clip_00.wav", "a/clip_00.wav")
        tar.add("clips/clip_00.wav", "a/._clip_00.wav")
    assert labelled("mac.tar", model=model).count("\n") == 2


def test_a_corpus_is_a_folder_if_it_is_one(here):
    assert open_corpus(["clips"]) == Folder(Path("clips"))
