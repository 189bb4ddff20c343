"""The same clips as corpora of every kind."""

import tarfile
from pathlib import Path

import fsspec
import pytest

from corpora import write_table


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


@pytest.fixture
def memory():
    """A remote file system in the memory of this process: `memory://…`."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]
