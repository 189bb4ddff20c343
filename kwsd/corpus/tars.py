"""Tar files, as WebDataset has them: every recording in them is a clip.

A tar file is listed once; its clips are then read by their first byte and their number of bytes.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory

from kwsd.corpus.remote import File, opened, saved
from kwsd.corpus.source import Addressed, Clip, Found, noted
from kwsd.errors import AudioError
from kwsd.files import is_recording

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7z", b"\x28\xb5\x2f\xfd")
"""How gzip, bzip2, xz and zstd begin."""

_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Tars(Addressed):
    """Clips are named by the address of the tar file, and the path in it."""

    def _listed(self, file: File, unlisted: list[AudioError]) -> Iterator[Found]:
        address, n_others = file.address, 0
        with noted(unlisted):
            for member in _members(address):
                if not is_recording(Path(member.name).name):
                    continue
                if not member.isreg() or member.issparse():
                    n_others += 1
                    continue
                path, place = os.fsencode(f"{address}/{member.name}"), (member.offset_data, member.size)
                clip = Clip(path, os.fsencode(address), place)
                yield Found(clip, path.rpartition(b"/")[2], f"{file.fingerprint} {place}")
        if n_others:
            advice = "links or sparse files in it are left out; store plain files in their place"
            unlisted.append(AudioError(f"{address}: {n_others} {advice}"))

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        with TemporaryDirectory(prefix="kwsd-") as folder:
            ordered = sorted(clips, key=attrgetter("container", "place"))
            for container, own in groupby(ordered, attrgetter("container")):
                yield from _copied(self._readable(container), list(own), Path(folder))


def _members(address: str) -> Iterator[tarfile.TarInfo]:
    with opened(address) as file:
        if file.read(6).startswith(_COMPRESSED):
            raise AudioError(f"{address}: is compressed, so no clip can be read by itself; decompress it")
        file.seek(0)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while member := tar.next():
                tar.members = []  # type: ignore[attr-defined]  # or all of them stay in memory
                yield member
            file.seek(tar.offset)
            while block := file.read(_BLOCK_BYTES):  # tarfile takes a damaged header for the end
                if block.strip(b"\0"):
                    end = f"damaged at byte {tar.offset}, or two archives in one"
                    raise AudioError(f"{address}: {end}; what follows is left out")


def _copied(address: str, clips: list[Clip], folder: Path) -> Iterator[tuple[Clip, Path | AudioError]]:
    """A file of its own for each clip of a tar file."""
    recordings = _bytes_of(address, clips)
    for n, clip in enumerate(clips):
        try:
            data = next(recordings)
        except AudioError as error:
            yield from ((one, error) for one in clips[n:])
            return
        yield clip, saved(data, folder / f"clip{Path(os.fsdecode(clip.path)).suffix}")


def _bytes_of(address: str, clips: list[Clip]) -> Iterator[bytes]:
    with opened(address) as file:
        for clip in clips:
            first, n_bytes = clip.place
            file.seek(first)
            yield file.read(n_bytes)
