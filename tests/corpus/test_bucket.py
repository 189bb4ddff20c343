"""A bucket behind a server that speaks S3 has the labels of the folder."""

import pytest

from kwsd.commands.label import label_corpus
from kwsd.corpus.folder import Folder
from kwsd.corpus.open import open_corpus
from kwsd.errors import AudioError

server = pytest.importorskip("moto.server")
s3fs = pytest.importorskip("s3fs")


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a server on this machine; gives the file system."""
    serving = server.ThreadedMotoServer(port=0, verbose=False)
    serving.start()
    host, port = serving.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "name"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = s3fs.S3FileSystem()
    system.mkdir("recordings")
    yield system
    system.rm("recordings", recursive=True)
    serving.stop()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def clips(tmp_path, write_wav, demo):
    for n in range(40):
        write_wav(f"clips/{'ab'[n % 2]}/clip_{n:02}.wav", demo[n * 5000 :][:16000])
    return tmp_path / "clips"


def test_a_bucket_has_the_labels_of_the_folder(bucket, clips, tmp_path, model):
    bucket.put(str(clips), "recordings/clips", recursive=True)
    label_corpus(Folder(clips), tmp_path / "folder.csv", model)
    wanted = (tmp_path / "folder.csv").read_text()
    for source in ("s3://recordings/clips", "s3://recordings/clips/*/clip_*.wav"):
        label_corpus(open_corpus([source]), tmp_path / "bucket.csv", model)
        assert (tmp_path / "bucket.csv").read_text() == wanted


def test_only_objects_that_changed_are_read_again(bucket, clips, tmp_path, model, monkeypatch):
    bucket.put(str(clips), "recordings/clips", recursive=True)
    corpus = open_corpus(["s3://recordings/clips"])

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("kwsd.commands.label.write_labels", interrupted)
        with pytest.raises(KeyboardInterrupt):
            label_corpus(corpus, tmp_path / "s.csv", model)
    bucket.put(str(clips / "a" / "clip_02.wav"), "recordings/clips/a/clip_00.wav")
    bucket.rm("recordings/clips/b/clip_01.wav")
    s3fs.S3FileSystem.clear_instance_cache()  # as in another run
    summary = label_corpus(corpus, tmp_path / "s.csv", model)
    assert (summary.n_before, summary.counts.total()) == (38, 39)


def test_what_a_bucket_refuses_is_one_line(bucket, tmp_path, model):
    bucket.pipe("recordings/clips/broken.wav", b"not audio")
    for source, reason in (
        ("s3://recordings/absent/", "no such file, and no WAV files below it; for others name a pattern, .*"),
        ("s3://absent/clips/", "no such file, and no WAV files below it; for others name a pattern, .*"),
    ):
        with pytest.raises(AudioError, match=f"^{source}: {reason}$"):
            label_corpus(open_corpus([source]), tmp_path / "s.csv", model)
    summary = label_corpus(open_corpus(["s3://recordings/clips"]), tmp_path / "s.csv", model)
    [error] = summary.unreadable
    assert str(error).startswith("s3://recordings/clips/broken.wav: not a readable recording")
