"""What every corpus offers: it finds clips, and gives a local file for each.

Law: finding reads no audio, so that it can come first and be repeated by every run. A corpus is small
and can be pickled: worker processes, also on other machines, read by themselves.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, Protocol

from kwsd.errors import AudioError


class Clip(NamedTuple):
    """A recording of a corpus.

    Attributes:
        path: what identifies it in its corpus, as bytes of the file system.
        place: where it is inside of a larger file; empty if it is a file.
    """

    path: bytes
    place: str = ""


class Found(NamedTuple):
    """A clip, its name, and its state: a clip whose state has changed is not the same any more."""

    clip: Clip
    name: bytes
    state: str


class Closed(NamedTuple):
    """A part of a corpus that cannot be listed: what its clips' paths begin with, and why."""

    prefix: bytes
    error: AudioError


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
        """What tells this corpus from any other that has the same paths in it."""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """Local files that list or contain the clips, and that no output may replace."""

    def shown(self, path: bytes) -> str:
        """A clip's path, as the user would write it."""

    def path_of(self, file: Path) -> bytes:
        """The path that a local file would have as a clip."""

    def find(self, closed: list[Closed]) -> Iterator[Found]:
        """Find all clips.

        Args:
            closed: receives each part that cannot be listed.

        Raises:
            AudioError: nothing can be listed.
        """

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        """Give a local file for each clip, which exists until the next one is asked for, or what went wrong.

        In any order: each clip comes once.
        """


@dataclass(frozen=True, slots=True)
class Addressed:
    """What corpora share whose clips are named by addresses.

    Attributes:
        sources: paths, patterns and addresses, as the user wrote them.
    """

    sources: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    empty: ClassVar[str] = "has no recordings"

    @property
    def name(self) -> str:
        more = f" and {len(self.sources) - 1} more" if len(self.sources) > 1 else ""
        return f"{self.sources[0]}{more}"

    @property
    def identity(self) -> bytes:
        return f"{Path.cwd()} {self}".encode()

    def shown(self, path: bytes) -> str:
        return os.fsdecode(path)

    def path_of(self, file: Path) -> bytes:
        return os.fsencode(file)
