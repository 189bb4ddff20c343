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
        (
            ["clips", "shard-0.tar"],
            "",
            ConfigError,
            "clips and shard-0.tar: are of different kinds; label each kind by itself",
        ),
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
        ([""], "", ConfigError, "SOURCE: is empty; name a folder, or recordings"),
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
        ("labels.parquet", "labels.parquet"),
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
    label_corpus(open_corpus(["clips"]), Path("labels.parquet"), model)
    for output in (Path(target), here / target):
        before = output.read_bytes()
        reason = "is an input of this run" if target == "labels.parquet" else "is no table that this command wrote"
        with pytest.raises(OutputError, match=f"{output}: {reason}"):
            label_corpus(open_corpus([source]), output, model)
        assert output.read_bytes() == before
    assert not list(here.rglob("*.ledger"))


def test_any_name_can_be_in_parquet(here, model, write_wav, noise):
    Path(os.fsdecode(b"clips/bad\xff.wav")).write_bytes(write_wav("clips/a.wav", noise).read_bytes())
    label_corpus(open_corpus(["clips"]), Path("out.parquet"), model)
    assert "bad\\xff.wav" in pyarrow.parquet.read_table("out.parquet")["path"].to_pylist()


def test_what_a_server_does_not_deliver_is_tried_again(here, memory, model, monkeypatch):
    memory.put(str(here / "clips"), "/clips", recursive=True)
    corpus = open_corpus(["memory://clips/*.wav"])
    with monkeypatch.context() as patched:
        _time_out(patched, "/clips/clip_02.wav", from_call=1)
        summary = label_corpus(corpus, Path("out.csv"), model)
    reason = "memory:///clips/clip_02.wav: cannot be read (Connection timed out)"
    assert [str(error) for error in summary.unreachable] == [reason]
    assert any("the same command tries them again" in line for line in summary.complaints(corpus, Path("out.csv")))
    assert Path("out.csv.ledger").exists()
    summary = label_corpus(corpus, Path("out.csv"), model)
    assert (summary.n_before, summary.counts.total(), summary.is_complete) == (19, 20, True)
    assert not Path("out.csv.ledger").exists()


def test_an_output_is_kept_if_a_server_delivers_nothing(here, memory, model, monkeypatch):
    before = labelled("clips", model=model)
    memory.put(str(here / "shard-0.tar"), "/shard-0.tar")
    _time_out(monkeypatch, "/shard-0.tar", from_call=2)
    with pytest.raises(AudioError, match=r"memory:///shard-0.tar: cannot be read \(Connection timed out\)"):
        labelled("memory://shard-0.tar", model=model)
    assert Path("out.csv").read_text() == before
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
        "links.tar: 1 links or sparse files in it are left out; store plain files in their place"
    ]


def test_a_list_is_plain_text(here, model):
    Path("bom.txt").write_bytes(b"\xef\xbb\xbfclips/clip_00.wav\r\n\r\nclips/clip_01.wav")
    assert labelled("bom.txt", model=model).count("\n") == 3
    Path("wide.txt").write_text("clips/clip_00.wav\n", encoding="utf-16")
    with pytest.raises(AudioError, match=r"wide.txt: line 1 is no path; a list is plain text, a path on each line"):
        labelled("wide.txt", model=model)


def test_what_follows_a_damaged_header_in_a_tar_is_missed(here, model):
    whole = Path("shard-0.tar").read_bytes()
    with tarfile.open("shard-0.tar") as tar:
        begins = [member.offset for member in tar]
        ends = [*begins, tar.offset]
    for name, data, n_clips in (
        ("header", whole[: begins[3]] + b"\xff" * 100 + whole[begins[3] + 100 :], 3),
        ("cut", whole[: begins[4] + 200], 4),
        ("two", whole + Path("shard-1.tar").read_bytes(), 11),
    ):
        Path(f"{name}.tar").write_bytes(data)
        summary = label_corpus(open_corpus([f"{name}.tar"]), Path("out.csv"), model)
        assert summary.counts.total() == n_clips
        [error] = summary.unreadable
        assert str(error).startswith(f"{name}.tar: damaged at byte {ends[n_clips]}, or two archives in one")


def test_a_remote_name_that_looks_like_a_pattern_is_a_name(here, memory, model):
    memory.put("clips/clip_02.wav", "/a[1].wav")
    memory.put("clips/clip_03.wav", "/a1.wav")
    assert labelled("memory://a[1].wav", model=model).splitlines()[1].startswith("a[1].wav,")


def test_parquet_files_that_differ_are_named(here, model):
    write_table("x1.parquet", {"audio": [Path("clips/clip_00.wav").read_bytes()]})
    write_table("x2.parquet", {"audio": ["clips/clip_00.wav", None]})
    write_table("x3.parquet", {"other": [1]})
    message = "has no column audio of {}, which the first file has; label this one by itself"
    summary = label_corpus(open_corpus(["x1.parquet", "x2.parquet", "x3.parquet"]), Path("out.csv"), model)
    assert summary.counts.total() == 1
    assert [str(error) for error in summary.unreadable] == [
        f"x{n}.parquet: {message.format('recordings')}" for n in (2, 3)
    ]
    summary = label_corpus(open_corpus(["x2.parquet", "x1.parquet"]), Path("out.csv"), model)
    assert summary.counts.total() == 1
    assert [str(error) for error in summary.unreadable] == [
        "x2.parquet: 1 rows of audio are empty",
        f"x1.parquet: {message.format('text')}",
    ]


def test_a_file_of_a_pattern_that_cannot_be_listed_costs_only_its_own_clips(here, model):
    write_table("q0.parquet", {"path": ["clips/clip_00.wav", ""]})
    Path("q1.parquet").write_bytes(b"not Parquet")
    for n in (2, 3):
        write_table(f"q{n}.parquet", {"path": [f"clips/clip_{n:02}.wav"]})
    summary = label_corpus(open_corpus(["q0.parquet", "q[1-3].parquet"]), Path("out.csv"), model)
    assert summary.counts.total() == 3
    assert [str(error).partition(":")[0] for error in summary.unreadable] == ["q0.parquet", "q1.parquet"]


def test_a_full_folder_for_copies_ends_the_run(here, model, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(
        OutputError,
        match=r"no copy can be written \(No space left on device\); set TMPDIR to a folder with room for copies",
    ):
        labelled("shard-0.tar", model=model)
    assert not Path("out.csv").exists()


def test_a_pipe_is_no_list(here, model):
    os.mkfifo("list.lst")
    with pytest.raises(AudioError, match=r"list.lst: not a file"):
        labelled("list.lst", model=model)
