"""Tar files, as WebDataset has them: every recording in them is a clip.

A tar file is listed once; its clips are then read by their places in it.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from kwsd.corpus.remote import files_at, opened
from kwsd.corpus.source import Addressed, Clip, Closed, Found
from kwsd.errors import AudioError
from kwsd.files import is_recording

_GZIP, _BZIP2, _XZ, _ZSTD = b"\x1f\x8b", b"BZh", b"\xfd7z", b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True, slots=True)
class Tars(Addressed):
    """Clips are named by the address of the tar file, and the path in it."""

    def find(self, closed: list[Closed]) -> Iterator[Found]:
        for source in self.sources:
            for tar, state in files_at(source):
                try:
                    yield from _listed(tar, state)
                except AudioError as error:
                    closed.append(Closed(os.fsencode(f"{tar}/"), error))

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        with TemporaryDirectory(prefix="kwsd-") as folder:
            for tar, own in groupby(sorted(clips, key=_tar_and_place), lambda clip: _tar_and_place(clip)[0]):
                yield from _parts(tar, list(own), Path(folder))


def _tar_and_place(clip: Clip) -> tuple[str, int, int]:
    """The address of a clip's tar file, and the first byte and number of bytes in it."""
    first, n_bytes, n_letters = map(int, clip.place.split())
    return os.fsdecode(clip.path[:n_letters]), first, n_bytes


def _listed(tar: str, state: str) -> Iterator[Found]:
    with opened(tar) as file:
        if file.read(6).startswith((_GZIP, _BZIP2, _XZ, _ZSTD)):
            raise AudioError(f"{tar}: is compressed, so no clip can be read by itself; decompress it")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as members:
            while member := members.next():
                members.members = []  # type: ignore[attr-defined]  # or all of them stay in memory
                if member.isreg() and is_recording(Path(member.name).name):
                    path = os.fsencode(f"{tar}/{member.name}")
                    place = f"{member.offset_data} {member.size} {len(os.fsencode(tar))}"
                    yield Found(Clip(path, place), path.rpartition(b"/")[2], f"{state} {place}")


def _parts(tar: str, clips: list[Clip], folder: Path) -> Iterator[tuple[Clip, Path | AudioError]]:
    """A file of its own for each clip."""
    done = 0
    try:
        with opened(tar) as file:
            for clip in clips:
                _, first, n_bytes = _tar_and_place(clip)
                file.seek(first)
                data = file.read(n_bytes)
                path = folder / f"clip{Path(os.fsdecode(clip.path)).suffix}"
                path.write_bytes(data)
                done += 1
                yield clip, path
    except AudioError as error:
        yield from ((clip, error) for clip in clips[done:])
