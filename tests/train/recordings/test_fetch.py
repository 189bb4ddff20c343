"""Downloads from a local HTTP server: complete, resumed, interrupted, and wrong."""

import hashlib
import io
import random
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import train.recordings.fetch
from kwsd.errors import TrainingError
from train.recordings.fetch import Archive, fetch


@pytest.fixture(scope="module")
def content():
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name in ("./yes/0_nohash_0.wav", "./no/0_nohash_0.wav", "./validation_list.txt"):
            data = random.Random(name).randbytes(20_000)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


@pytest.fixture
def server(content):
    """Serve the archive with ranges; `break_after` cuts off the next answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.requests.append(self.headers.get("Range"))
            if self.path != "/archive.tar.gz":
                return self.send_error(404)
            wanted = self.headers.get("Range") if state.ranges else None
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206 if wanted else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = state.break_after.pop() if state.break_after else len(content)
            return self.wfile.write(content[start : max(start, end)])

        def log_message(self, *_):
            pass

    class State:
        requests, break_after, ranges = [], [], True

    state = State()
    state.requests, state.break_after = [], []
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{httpd.server_port}/archive.tar.gz"
    state.archive = Archive(url, hashlib.sha256(content).hexdigest())
    yield state
    httpd.shutdown()
    httpd.server_close()


def is_whole(folder):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix)
    return [name for name in names if ".fetched" not in name] == [
        "no/0_nohash_0.wav", "validation_list.txt", "yes/0_nohash_0.wav",
    ]  # fmt: skip


def test_an_archive_is_downloaded_and_unpacked_only_once(server, tmp_path):
    fetch(tmp_path / "data", server.archive)
    assert is_whole(tmp_path / "data")
    fetch(tmp_path / "data", server.archive)
    assert server.requests == [None]


def test_a_download_resumes_after_a_broken_connection(server, tmp_path, content):
    server.break_after = [len(content) // 2, 1000]
    fetch(tmp_path, server.archive)
    assert is_whole(tmp_path)
    assert server.requests == [None, "bytes=1000-", f"bytes={len(content) // 2}-"]


def test_a_second_run_continues_where_the_first_stopped(server, tmp_path, content):
    part = tmp_path / f"{server.archive.sha256[:12]}.tar.gz.part"
    part.write_bytes(content[:777])
    fetch(tmp_path, server.archive)
    assert is_whole(tmp_path)
    assert server.requests == ["bytes=777-"]


def test_a_complete_part_file_is_not_downloaded_again(server, tmp_path, content):
    (tmp_path / f"{server.archive.sha256[:12]}.tar.gz.part").write_bytes(content)
    fetch(tmp_path, server.archive)
    assert is_whole(tmp_path)


def test_a_download_from_a_server_without_ranges_starts_again(server, tmp_path, content):
    server.ranges = False
    (tmp_path / f"{server.archive.sha256[:12]}.tar.gz.part").write_bytes(b"x" * 10)
    fetch(tmp_path, server.archive)
    assert is_whole(tmp_path)


def test_a_wrong_checksum_leaves_no_files(server, tmp_path):
    with pytest.raises(TrainingError, match=r"has checksum .* it was removed"):
        fetch(tmp_path, Archive(server.archive.url, "0" * 64))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_archive_is_an_error_at_once(server, tmp_path):
    with pytest.raises(TrainingError, match=r"absent: cannot be downloaded \(Not Found\)"):
        fetch(tmp_path, Archive(server.archive.url.replace("archive.tar.gz", "absent"), "0" * 64))
    assert len(server.requests) == 1


def test_an_unreachable_server_is_retried_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(train.recordings.fetch, "_TRIES", 2)
    with pytest.raises(TrainingError, match=r"127.0.0.1:9/.*the same command continues"):
        fetch(tmp_path, Archive("http://127.0.0.1:9/a", "0" * 64))
