"""A folder of this machine: every WAV below it is a clip."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from kwsd.corpus.remote import fingerprint_of
from kwsd.corpus.source import Clip, Found
from kwsd.errors import AudioError
from kwsd.files import is_wav


@dataclass(frozen=True, slots=True)
class Folder:
    """Clips are named by their paths relative to the folder.

    Attributes:
        root: the folder, as the user wrote it; base: the folder in which it begins, if it is relative.
    """

    root: Path
    base: Path = field(default_factory=Path.cwd)
    empty: ClassVar[str] = "no WAV files below it; others are found by a pattern, such as 'DIR/**/*.flac'"

    @property
    def name(self) -> str:
        return str(self.root)

    @property
    def identity(self) -> bytes:
        return os.fsencode((self.base / self.root).resolve())

    @property
    def lists(self) -> list[Path]:
        return []

    def shown(self, path: bytes) -> str:
        return str(self.root / os.fsdecode(path))

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        return ((clip, self.base / self.root / os.fsdecode(clip.path)) for clip in clips)

    def find(self, unlisted: list[AudioError]) -> Iterator[Found]:
        """Find all WAVs, without a list of them in memory.

        Links to folders are followed; a folder that is reached twice, as in a circle of links, counts once.
        """
        if not self.root.is_dir():
            raise AudioError(f"{self.root}: no such folder")
        root = os.fsencode(self.root)
        waiting, visited = [b""], {_place(os.stat(root))}  # noqa: PTH116  (bytes)
        while waiting:
            parent = waiting.pop()
            try:
                with os.scandir(os.path.join(root, parent)) as entries:  # noqa: PTH118  (bytes)
                    for entry in entries:
                        path = os.path.join(parent, entry.name)  # noqa: PTH118
                        if _is_folder(entry):
                            place = _place(entry.stat())
                            if place not in visited:
                                visited.add(place)
                                waiting.append(path)
                        elif is_wav(os.fsdecode(entry.name)):
                            yield Found(Clip(path), entry.name, _fingerprint(entry))
            except OSError as error:
                unlisted.append(AudioError(f"{os.fsdecode(error.filename)}: {error.strerror}"))


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    """Whether an entry is a folder. For a link to itself `is_dir` raises; it is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _fingerprint(entry: "os.DirEntry[bytes]") -> str:
    try:
        return fingerprint_of(entry.stat())
    except OSError:  # a dead link, for example
        return ""
