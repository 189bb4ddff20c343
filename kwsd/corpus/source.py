"""What every corpus offers: it finds clips, and gives a local file for each.

Law: finding decodes no audio, so that it can come first and be repeated by every run. A corpus is small
and can be pickled: worker processes, also on other machines, read by themselves.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from kwsd.corpus.remote import File, files_at, is_remote
from kwsd.errors import AudioError


class Clip(NamedTuple):
    """A recording of a corpus.

    Attributes:
        path: what identifies it in its corpus, as bytes of the file system.
        container: address of the larger file that has it; empty if it is a file itself.
        place: two numbers that say where it is in the container.
    """

    path: bytes
    container: bytes = b""
    place: tuple[int, int] = (0, 0)


class Found(NamedTuple):
    """A clip, its name, and the fingerprint of its file: if that has changed, the clip is not the same any more."""

    clip: Clip
    name: bytes
    fingerprint: str


class Corpus(Protocol):
    """Recordings.

    Attributes:
        empty: what is wrong if there are none.
    """

    empty: ClassVar[str]

    @property
    def name(self) -> str:
        """The corpus as the user calls it."""

    @property
    def identity(self) -> bytes:
        """Bytes that differ between corpora whose clips have equal paths."""

    @property
    def lists(self) -> list[Path]:
        """Local files that only name the clips."""

    def shown(self, path: bytes) -> str:
        """A clip's path, as the user would write it."""

    def find(self, unlisted: list[AudioError]) -> Iterator[Found]:
        """Find all clips.

        Args:
            unlisted: receives an error for each part that cannot be listed.
        """

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        """Give a local file for each clip, which exists until the next one is asked for, or what went wrong.

        In any order; each clip comes once.

        Raises:
            OutputError: a copy cannot be written.
        """


@contextmanager
def noted(unlisted: list[AudioError]) -> Iterator[None]:
    """Note what cannot be listed, and go on."""
    try:
        yield
    except AudioError as error:
        unlisted.append(error)


@dataclass(frozen=True, slots=True)
class Addressed(ABC):
    """Base of the corpora whose clips are named by address.

    Attributes:
        sources: paths, patterns and addresses, as the user wrote them.
        base: the folder in which relative paths begin.
    """

    sources: tuple[str, ...]
    base: Path = field(default_factory=Path.cwd)
    empty: ClassVar[str] = "has no recordings"

    @property
    def name(self) -> str:
        more = f" and {len(self.sources) - 1} more" if len(self.sources) > 1 else ""
        return f"{self.sources[0]}{more}"

    @property
    def identity(self) -> bytes:
        return self._beginning

    @property
    def _beginning(self) -> bytes:
        """What relative paths depend on."""
        return b"" if all(map(is_remote, self.sources)) else os.fsencode(self.base)

    @property
    def lists(self) -> list[Path]:
        return []

    def shown(self, path: bytes) -> str:
        return os.fsdecode(path)

    def find(self, unlisted: list[AudioError]) -> Iterator[Found]:
        for source in self.sources:
            with noted(unlisted):
                for file in files_at(source):
                    with noted(unlisted):
                        yield from self._listed(file, unlisted)

    @abstractmethod
    def _listed(self, file: File, unlisted: list[AudioError]) -> Iterator[Found]:
        """The clips in one file of a source."""

    def _readable(self, address: bytes) -> str:
        """An address that does not depend on the present folder."""
        text = os.fsdecode(address)
        return text if is_remote(text) else str(self.base / text)
