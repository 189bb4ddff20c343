"""Files by their addresses: paths of this machine, and what fsspec reaches, such as buckets and web servers.

Law: an address without a protocol is a path of this machine, and needs no fsspec. What a file system
reports becomes one line. Keys and endpoints come from where its own tools have them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic, iglob
from pathlib import Path
from typing import IO, Any, NamedTuple

from kwsd.corpus.folder import state_of
from kwsd.errors import AudioError
from kwsd.files import is_wav

_TELLS_CHANGES = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "updated")
"""What file systems of fsspec say about a file, by their own names."""


class File(NamedTuple):
    """A file that was found: its address, and a state that changes with it."""

    address: str
    state: str


def is_remote(address: str) -> bool:
    """Whether an address names a protocol."""
    return "://" in address


def files_at(address: str) -> list[File]:
    """The file at an address, the files that match a pattern (`*`, `**`, `?`, `[]`), or the WAVs below a remote folder.

    Raises:
        AudioError: there is none, or they cannot be listed.
    """
    with one_line(address):
        files = list((_remote if is_remote(address) else _local)(address))
    if not files:
        below = ", and no WAV files below it" if is_remote(address) else ""
        raise AudioError(f"{address}: {'no file matches it' if has_magic(address) else f'no such file{below}'}")
    return files


def local_state(path: Path) -> str:
    """The state of a file of this machine; empty if there is none."""
    try:
        return state_of(path.stat())
    except OSError:
        return ""


@contextmanager
def opened(address: str) -> Iterator[IO[bytes]]:
    """Open a file for reading.

    Raises:
        AudioError: it cannot be opened, or something in the block cannot be read.
    """
    with one_line(address):
        if is_remote(address):
            system, path = _file_system(address)
            with system.open(path, "rb") as file:
                yield file
        else:
            with Path(address).open("rb") as file:
                yield file


def fetch(address: str, target: Path) -> None:
    """Copy a remote file to this machine.

    Raises:
        AudioError: it cannot be read.
    """
    with one_line(address):
        system, path = _file_system(address)
        system.get_file(path, str(target))


@contextmanager
def one_line(address: str) -> Iterator[None]:
    """Turn whatever a file system or a library for a format raises into one line: each has errors of its own."""
    try:
        yield
    except AudioError:
        raise
    except Exception as error:
        of_system = error.strerror if isinstance(error, OSError) else None
        reason = of_system or next(iter(str(error).splitlines()), "") or type(error).__name__
        raise AudioError(f"{address}: cannot be read ({reason})") from None


def _local(address: str) -> Iterator[File]:
    found = [address] if Path(address).exists() else sorted(iglob(address, recursive=True))  # noqa: PTH207  (any pattern)
    for path in found:
        if not Path(path).is_dir():
            yield File(path, local_state(Path(path)))


def _remote(address: str) -> Iterator[File]:
    system, path = _file_system(address)
    listing = (system.glob if has_magic(path) else system.find)(path, detail=True)
    for name, about in sorted(listing.items()):
        is_wanted = has_magic(path) or name == path or is_wav(name.rpartition("/")[2])
        if about.get("type") != "directory" and is_wanted:
            state = " ".join(str(about[key]) for key in _TELLS_CHANGES if key in about)
            yield File(system.unstrip_protocol(name), state)


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise AudioError(f"{address}: is not on this machine, which needs pip install 'kwsd[corpus]'") from None
    try:
        system, path = url_to_fs(address)
    except ImportError as error:  # of the package for this protocol, which fsspec names
        raise AudioError(f"{address}: {error}") from None
    return system, path
