"""Recordings by their addresses: given one by one, by a pattern, as a folder in a bucket, or in a list."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from kwsd.corpus.remote import fetch, files_at, is_remote, local_state, opened
from kwsd.corpus.source import Addressed, Clip, Closed, Found
from kwsd.corpus.table import addresses_in
from kwsd.errors import AudioError

_AT_ONCE = 32
"""Files on their way to this machine: a bucket takes long to answer, and answers many at once."""


@dataclass(frozen=True, slots=True)
class Files(Addressed):
    """Clips are named by their addresses."""

    def find(self, closed: list[Closed]) -> Iterator[Found]:
        for source in self.sources:
            try:
                for address, state in files_at(source):
                    yield _found(address, state)
            except AudioError as error:
                if len(self.sources) == 1:
                    raise
                closed.append(Closed(os.fsencode(source), error))

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        remote = []
        for clip in clips:
            if is_remote(self.shown(clip.path)):
                remote.append(clip)
            else:
                yield clip, Path(self.shown(clip.path))
        if remote:
            yield from _fetched(remote)


@dataclass(frozen=True, slots=True)
class Listed(Files):
    """Recordings whose addresses are the lines of a text file, or a column of Parquet files.

    Relative paths start at the folder of the list. Whether a remote file has changed since an earlier
    run is not asked: that would take a request for each.
    """

    column: str = ""

    def find(self, closed: list[Closed]) -> Iterator[Found]:
        for source in self.sources:
            for part, _ in files_at(source):
                lines = addresses_in(part, self.column) if self.column else _lines(part)
                for line in lines:
                    address = _beside(part, line)
                    yield _found(address, "" if is_remote(address) else local_state(Path(address)))


def _found(address: str, state: str) -> Found:
    path = os.fsencode(address)
    return Found(Clip(path), path.rpartition(b"/")[2], state)


def _fetched(clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
    """A copy of each clip on this machine, removed when the next one is asked for."""
    waiting: deque[tuple[Clip, Future[Path]]] = deque()
    with TemporaryDirectory(prefix="kwsd-") as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        for n, clip in enumerate(clips):
            waiting.append((clip, pool.submit(_copy, clip, Path(folder), n)))
            if len(waiting) == _AT_ONCE:
                yield from _next(waiting)
        while waiting:
            yield from _next(waiting)


def _copy(clip: Clip, folder: Path, n: int) -> Path:
    address = os.fsdecode(clip.path)
    copy = folder / f"{n}{Path(address).suffix}"
    fetch(address, copy)
    return copy


def _next(waiting: deque[tuple[Clip, Future[Path]]]) -> Iterator[tuple[Clip, Path | AudioError]]:
    clip, future = waiting.popleft()
    try:
        path = future.result()
    except AudioError as error:
        yield clip, error
        return
    yield clip, path
    path.unlink()


def _lines(address: str) -> Iterator[str]:
    with opened(address) as file:
        for line in file:
            if path := line.strip(b"\r\n"):
                yield os.fsdecode(path)


def _beside(part: str, line: str) -> str:
    """An address in a list, which may be relative to the list's folder."""
    if is_remote(line) or Path(line).is_absolute():
        return line
    folder, slash, _ = part.rpartition("/")
    return f"{folder}{slash}{line}"
