"""Every kind of corpus has the same clips, and what is wrong with one costs a line."""

import csv
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from kwsd.commands.label import label_corpus, spot_corpus
from kwsd.corpus.folder import Folder
from kwsd.corpus.open import open_corpus
from kwsd.errors import AudioError, ConfigError, OutputError


@pytest.fixture
def here(tmp_path, write_wav, demo, monkeypatch):
    """A working folder with the same clips as files, tar files, Parquet, and lists."""
    monkeypatch.chdir(tmp_path)
    paths = [write_wav(f"clips/clip_{n:02}.wav", demo[n * 9000 :][:16000]) for n in range(20)]
    names = [path.name for path in paths]
    for name, own in (("shard-0.tar", paths[:11]), ("shard-1.tar", paths[11:])):
        with tarfile.open(name, "w") as tar:
            for path in own:
                tar.add(path, path.name)
    audio = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    write_table("audio.parquet", {"audio": audio, "speaker": range(20)}, rows=7)
    write_table("bytes.parquet", {"recording": [one["bytes"] for one in audio], "path": names})
    write_table("paths.parquet", {"path": [f"clips/{name}" for name in names], "text": names})
    Path("list.txt").write_text("".join(f"clips/{name}\n" for name in names))
    return tmp_path


def write_table(path, columns, rows=1000):
    pyarrow.parquet.write_table(pyarrow.table({name: list(one) for name, one in columns.items()}), path, rows)


def labelled(*sources, column="", **options):
    output = Path("out.csv")
    label_corpus(open_corpus([*map(str, sources)], column), output, **options)
    return output.read_text()


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


def test_remote_clips_have_the_labels_of_the_folder(here, model):
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
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


def test_what_cannot_be_read_costs_a_line_and_the_rest_is_labelled(here, model):
    Path("list.txt").write_text(Path("list.txt").read_text() + "clips/absent.wav\n/nowhere/a.wav\n")
    write_table("audio.parquet", {"audio": [Path("clips/clip_00.wav").read_bytes(), b"not audio", None]})
    os.truncate("shard-1.tar", 2 * 33000)
    for source, n_labelled, wanted in (
        ("list.txt", 20, ["/nowhere/a.wav: No such file", "clips/absent.wav: No such file"]),
        (
            "audio.parquet",
            1,
            ["audio.parquet#000000001: not a readable recording", "audio.parquet#000000002: empty file"],
        ),
        ("shard-*.tar", 12, ["shard-1.tar/clip_12.wav: trunc", "shard-1.tar: cannot be read (unexpected end of data)"]),
    ):
        summary = label_corpus(open_corpus([source]), Path("out.csv"), model)
        assert summary.counts.total() == n_labelled, source
        lines = [str(error) for error in summary.unreadable]
        assert all(map(str.startswith, sorted(lines), wanted)), lines
        assert len(lines) == len(wanted)


@pytest.mark.parametrize(
    ("sources", "column", "error", "message"),
    [
        (["absent"], "", AudioError, "absent: no such file"),
        (["absent/"], "", AudioError, "absent/: no such folder"),
        (["absent*.wav"], "", AudioError, r"absent\*.wav: no file matches it"),
        (["absent.tar"], "", AudioError, "absent.tar: no such file"),
        (["absent.txt"], "", AudioError, "absent.txt: no such file"),
        (["absent.parquet"], "", AudioError, "absent.parquet: no such file"),
        (["not.parquet"], "", AudioError, r"not.parquet: cannot be read \(.+\)"),
        (["gzip.tar"], "", AudioError, "gzip.tar: is compressed, so no clip can be read by itself; decompress it"),
        (["empty.tar"], "", AudioError, "empty.tar: has no recordings"),
        (["other://host/a.wav"], "", AudioError, r"other://host/a.wav: cannot be read \(Protocol not known: other\)"),
        (["clips", "shard-0.tar"], "", ConfigError, "clips and shard-0.tar: label a folder, tar files"),
        (["clips", "more"], "", ConfigError, "clips and more: name one folder"),
        (["audio.parquet"], "absent", ConfigError, "--column absent: audio.parquet has the columns audio"),
        (
            ["numbers.parquet"],
            "",
            ConfigError,
            "numbers.parquet: say with --column .* no column of bytes or text",
        ),
        (["two.parquet"], "", ConfigError, "two.parquet: say with --column .* it has the columns a, b"),
        (["clips"], "audio", ConfigError, "--column audio: clips is no Parquet"),
    ],
)
def test_what_cannot_be_a_corpus_is_refused_in_one_line(here, model, sources, column, error, message):
    Path("more").mkdir()
    Path("not.parquet").write_bytes(b"PAR1 not")
    tarfile.open("gzip.tar", "w:gz").close()
    tarfile.open("empty.tar", "w").close()
    write_table("numbers.parquet", {"n": [1]})
    write_table("two.parquet", {"a": ["x"], "b": ["y"]})
    with pytest.raises(error, match=message) as raised:
        labelled(*sources, column=column, model=model)
    assert "\n" not in str(raised.value)
    assert not Path("out.csv").exists()
    assert not list(here.glob("*.ledger"))


@pytest.mark.parametrize("source", ["shard-0.tar", "audio.parquet", "list.txt", "paths.parquet", "clips/*.wav"])
def test_no_source_is_overwritten(here, model, source):
    target = Path("clips/clip_03.wav") if "*" in source else Path(source)
    before = target.read_bytes()
    with pytest.raises(OutputError, match=f"{target}: is one of the clips, or has them; name another file to write"):
        label_corpus(open_corpus([source]), target, model)
    assert target.read_bytes() == before
    assert not list(here.rglob("*.ledger"))


def test_paths_in_a_list_begin_at_its_folder(here, model, monkeypatch):
    Path("lists").mkdir()
    Path("list.txt").rename("lists/list.txt")
    Path("clips").rename("lists/clips")
    assert labelled("lists/list.txt", model=model).count("\n") == 21


def test_hidden_files_of_a_mac_are_no_clips(here, model):
    with tarfile.open("mac.tar", "w") as tar:
        tar.add("clips/clip_00.wav", "a/clip_00.wav")
        tar.add("clips/clip_00.wav", "a/._clip_00.wav")
    assert labelled("mac.tar", model=model).count("\n") == 2


def test_a_corpus_is_a_folder_if_it_is_one(here):
    assert open_corpus(["clips"]) == Folder(Path("clips"))
