"""What is wrong with a corpus costs a line: nothing else is lost, and nothing is overwritten."""

import errno
import os
import tarfile
from pathlib import Path

import fsspec
import pyarrow.parquet
import pytest

from corpora import labelled, write_table
from kwsd.commands.label import label_corpus
from kwsd.corpus.open import open_corpus
from kwsd.errors import AudioError, ConfigError, OutputError


def test_what_cannot_be_read_costs_a_line_and_the_rest_is_labelled(here, model):
    Path("list.txt").write_text(Path("list.txt").read_text() + "clips/absent.wav\n/nowhere/a.wav\n")
    write_table("audio.parquet", {"audio": [Path("clips/clip_00.wav").read_bytes(), b"not audio", None]})
    os.truncate("shard-1.tar", 2 * 33000)
    for source, n_labelled, wanted in (
        ("list.txt", 20, ["/nowhere/a.wav: No such file", "clips/absent.wav: No such file"]),
        (
            "audio.parquet",
            1,
            ["audio.parquet#000000001: not a readable recording", "audio.parquet#000000002: has no bytes"],
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
        (["other://host/a.wav"], "", AudioError, r"other://host/a.wav: Protocol not known: other"),
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


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("shard-0.tar", "shard-0.tar"),
        ("shard-*.tar", "clips/../shard-1.tar"),
        ("audio.parquet", "audio.parquet"),
        ("*s.parquet", "paths.parquet"),
        ("list.txt", "./list.txt"),
        ("list.txt", "clips/clip_03.wav"),
        ("clips/*.wav", "clips/clip_03.wav"),
        ("clips/*.wav", "link.wav"),
        ("clips", "link.wav"),
    ],
)
def test_no_source_is_overwritten(here, model, source, target):
    Path("link.wav").symlink_to(here / "clips" / "clip_03.wav")
    Path("bytes.parquet").unlink()
    for output in (Path(target), here / target):
        before = output.read_bytes()
        with pytest.raises(
            OutputError, match=f"{output}: is one of the clips, or has them; name another file to write"
        ):
            label_corpus(open_corpus([source]), output, model)
        assert output.read_bytes() == before
    assert not list(here.rglob("*.ledger"))


def test_any_name_can_be_in_parquet(here, model, write_wav, noise):
    Path(os.fsdecode(b"clips/bad\xff.wav")).write_bytes(write_wav("clips/a.wav", noise).read_bytes())
    label_corpus(open_corpus(["clips"]), Path("out.parquet"), model)
    assert "bad\\xff.wav" in pyarrow.parquet.read_table("out.parquet")["path"].to_pylist()


def test_what_a_server_does_not_deliver_is_tried_again(here, memory, model, monkeypatch):
    memory.put(str(here / "clips"), "/clips", recursive=True)
    memory.put(str(here / "shard-0.tar"), "/shard-0.tar")
    for source, n_failed, reason in (
        ("memory://clips/*.wav", 1, "memory:///clips/clip_02.wav: cannot be read (Connection timed out)"),
        ("memory://shard-0.tar", 11, "memory:///shard-0.tar: cannot be read (Connection timed out)"),
    ):
        corpus = open_corpus([source])
        with monkeypatch.context() as patched:
            patched.setattr("kwsd.commands.jobs._can_use_processes", lambda: False)
            _time_out(patched, "/clips/clip_02.wav", from_call=1)
            _time_out(patched, "/shard-0.tar", from_call=2)
            summary = label_corpus(corpus, Path("out.csv"), model)
        assert len(summary.unreachable) == n_failed
        assert reason in str(summary.unreachable[0])
        n_before = summary.counts.total()
        assert Path("out.csv.ledger").exists() == (n_before > 0)
        summary = label_corpus(corpus, Path("out.csv"), model)
        assert (summary.n_before, summary.counts.total(), summary.is_complete) == (n_before, n_before + n_failed, True)
        assert not Path("out.csv.ledger").exists()


def _time_out(patched, path, from_call):
    """Let every access to a file of the memory's file system time out, from some call on."""
    calls = []
    system = fsspec.get_filesystem_class("memory")
    real = system._open

    def slow(self, name, *args, **kwargs):
        if name == path:
            calls.append(name)
            if len(calls) >= from_call:
                raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        return real(self, name, *args, **kwargs)

    patched.setattr(system, "_open", slow)


def test_a_name_that_has_changed_is_the_one_in_the_output(here, model, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("kwsd.commands.label.write_labels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            labelled("bytes.parquet", model=model)
    recordings = [path.read_bytes() for path in sorted(Path("clips").iterdir())]
    write_table("bytes.parquet", {"recording": recordings, "path": [f"new_{n:02}.wav" for n in range(20)]})
    assert "new_00.wav," in labelled("bytes.parquet", model=model)


def test_links_in_a_tar_are_named(here, model):
    os.link("clips/clip_00.wav", "clips/link.wav")
    with tarfile.open("links.tar", "w") as tar:
        tar.add("clips/clip_00.wav", "a.wav")
        tar.add("clips/link.wav", "b.wav")
    summary = label_corpus(open_corpus(["links.tar"]), Path("out.csv"), model)
    assert summary.counts.total() == 1
    assert [str(error) for error in summary.unreadable] == [
        "links.tar: 1 links in it are left out; store files in their place"
    ]


def test_a_list_is_plain_text(here, model):
    Path("bom.txt").write_bytes(b"\xef\xbb\xbfclips/clip_00.wav\r\n\r\nclips/clip_01.wav")
    assert labelled("bom.txt", model=model).count("\n") == 3
    Path("wide.txt").write_text("clips/clip_00.wav\n", encoding="utf-16")
    with pytest.raises(AudioError, match=r"wide.txt: line 1 is no path; a list is plain text, a path on each line"):
        labelled("wide.txt", model=model)
