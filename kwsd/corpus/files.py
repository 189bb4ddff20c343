"""Recordings by their addresses: given one by one, by a pattern, as a folder in a bucket, or in a list."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from kwsd.corpus.remote import File, fetch, files_at, fingerprint, is_remote, opened, without_query
from kwsd.corpus.source import Addressed, Clip, Found
from kwsd.corpus.table import addresses_in
from kwsd.errors import AudioError
from kwsd.workers import finished

_AT_ONCE = 32
"""Files on their way to this machine: a bucket takes long to answer, and answers many at once."""

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Files(Addressed):
    """Clips are named by their addresses."""

    def _listed(self, file: File, unlisted: list[AudioError]) -> Iterator[Found]:
        yield _found(file.address, file.fingerprint)

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        remote = []
        for clip in clips:
            address = self._readable(clip.path)
            if is_remote(address):
                remote.append(clip)
            else:
                yield clip, Path(address)
        if remote:
            yield from _fetched(remote)


@dataclass(frozen=True, slots=True)
class Listed(Files):
    """Recordings whose addresses are the lines of text files, or a column of Parquet files.

    Relative paths begin in the folder of the list. Whether a remote file has changed since an earlier
    run is not asked: that would take a request for each.
    """

    column: str = ""

    @property
    def lists(self) -> list[Path]:
        paths = []
        for source in self.sources:
            if not is_remote(source):
                with suppress(AudioError):  # `find` reports it
                    paths += [Path(file.address) for file in files_at(source)]
        return paths

    def _listed(self, file: File, unlisted: list[AudioError]) -> Iterator[Found]:
        for line in addresses_in(file.address, self.column) if self.column else _lines(file.address):
            address = _beside(file.address, line)
            yield _found(address, "" if is_remote(address) else fingerprint(Path(address)))


def _found(address: str, mark: str) -> Found:
    name = without_query(address).rpartition("/")[2]
    return Found(Clip(os.fsencode(address)), os.fsencode(name), mark)


def _fetched(clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
    """A copy of each clip on this machine, removed when the next one is asked for."""
    waiting: deque[tuple[Clip, Future[Path]]] = deque()
    with (
        TemporaryDirectory(prefix="kwsd-", ignore_cleanup_errors=True) as folder,
        finished(ThreadPoolExecutor(_AT_ONCE)) as pool,
    ):
        for n, clip in enumerate(clips):
            waiting.append((clip, pool.submit(_copy, clip, Path(folder), n)))
            if len(waiting) == _AT_ONCE:
                yield from _next(waiting)
        while waiting:
            yield from _next(waiting)


def _copy(clip: Clip, folder: Path, n: int) -> Path:
    address = os.fsdecode(clip.path)
    copy = folder / f"{n}{Path(without_query(address)).suffix}"
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
        for n, line in zip(count(1), file, strict=False):
            path = line.removeprefix(_BOM if n == 1 else b"").strip(b"\r\n")
            if b"\0" in path:
                raise AudioError(f"{address}: line {n} is no path; a list is plain text, a path on each line")
            if path:
                yield os.fsdecode(path)


def _beside(part: str, line: str) -> str:
    """An address in a list, which may be relative to the list's folder."""
    if is_remote(line) or Path(line).is_absolute():
        return line
    folder, slash, _ = part.rpartition("/")
    return f"{folder}{slash}{line}"
