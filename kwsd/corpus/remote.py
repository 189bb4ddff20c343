"""Files by their addresses: paths of this machine, and what fsspec reaches, such as buckets and web servers.

Law: an address without a protocol is a path of this machine, and needs no fsspec. What a file system
reports becomes one line. Keys and endpoints come from where its own tools have them.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import has_magic, iglob
from pathlib import Path
from tempfile import gettempdir
from typing import IO, Any, NamedTuple

from kwsd.errors import AudioError, KwsdError, OutputError, UnreachableError
from kwsd.files import is_wav

_TELLS_CHANGES = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified", "updated")
"""What file systems of fsspec say about a file, by their own names."""


_OTHER_FOLDER = "set TMPDIR to a folder with room for copies"


class File(NamedTuple):
    """A file that was found: its address, and a fingerprint that changes with it."""

    address: str
    fingerprint: str


def is_remote(address: str) -> bool:
    """Whether an address names a protocol."""
    return "://" in address


def without_query(address: str) -> str:
    """An address without what a web server is asked beside it, such as a signature."""
    return address.partition("?")[0] if address.startswith("http") else address


def files_at(address: str) -> Iterator[File]:
    """The file at an address, the files that match a pattern (`*`, `**`, `?`, `[]`), or the WAVs below a remote folder.

    Raises:
        AudioError: there is none, or they cannot be listed.
    """
    n_files = 0
    with one_line(address):
        for file in (_remote if is_remote(address) else _local)(address):
            n_files += 1
            yield file
    if not n_files:
        others = f"and no WAV files below it; for others name a pattern, such as {address.rstrip('/')}/*.tar"
        nothing = f"no such file, {others}" if is_remote(address) else "no such file"
        raise AudioError(f"{address}: {'no file matches it' if has_magic(address) else nothing}")


def fingerprint(path: Path) -> str:
    """Identify the present contents of a file of this machine; empty if there is no such file.

    The time of the last change is part of it, because tools that copy files preserve the time of modification.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    return fingerprint_of(status)


def fingerprint_of(status: os.stat_result) -> str:
    """As `fingerprint`."""
    return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"


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
            if Path(address).exists() and not Path(address).is_file():
                raise AudioError(f"{address}: not a file")
            with Path(address).open("rb") as file:
                yield file


def fetch(address: str, target: Path) -> None:
    """Copy a remote file to this machine.

    Raises:
        AudioError: it cannot be read, or the copy cannot be written.
        OutputError: the disk is full.
    """
    with one_line(address):
        system, path = _file_system(address)
        system.get_file(path, str(target))


def saved(data: bytes, copy: Path) -> Path:
    """Write a copy of a clip that is no file of its own; returns its path.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        copy.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{gettempdir()}: no copy can be written ({error.strerror}); {_OTHER_FOLDER}") from None
    return copy


@contextmanager
def one_line(address: str) -> Iterator[None]:
    """Turn whatever a file system or a library for a format raises into one line: each has errors of its own.

    Raises:
        UnreachableError: for a remote address, unless the file is missing.
        AudioError: for a file of this machine, and for a missing remote one.
        OutputError: the disk is full.
    """
    try:
        yield
    except KwsdError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutputError(f"{gettempdir()}: no copy can be written ({error.strerror}); {_OTHER_FOLDER}") from None
        of_system = error.strerror if isinstance(error, OSError) else None
        reason = of_system or next(iter(str(error).splitlines()), "") or type(error).__name__
        may_return = is_remote(address) and not isinstance(error, FileNotFoundError)
        raise (UnreachableError if may_return else AudioError)(f"{address}: cannot be read ({reason})") from None


def _local(address: str) -> Iterator[File]:
    found = [address] if Path(address).exists() else iglob(address, recursive=True)  # noqa: PTH207  (any pattern)
    for path in found:
        if not Path(path).is_dir():
            yield File(path, fingerprint(Path(path)))


def _remote(address: str) -> Iterator[File]:
    system, path = _file_system(address)
    for name, about in _listing(system, path).items():
        if about["type"] != "directory":
            changing = (str(about[key]) for key in _TELLS_CHANGES if key in about)
            yield File(system.unstrip_protocol(name), " ".join(changing))


def _listing(system: Any, path: str) -> dict[str, dict[str, Any]]:
    """What a file system says about each file, by path."""
    try:
        about = system.info(path)  # first, since a name may look like a pattern
    except FileNotFoundError:
        matching: dict[str, dict[str, Any]] = system.glob(path, detail=True) if has_magic(path) else {}
        return matching
    if about["type"] != "directory":
        return {path: about}
    below = system.find(path, detail=True)
    return {name: one for name, one in below.items() if is_wav(name.rpartition("/")[2])}


def _file_system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise AudioError(f"{address}: is not on this machine, which needs pip install 'kwsd[corpus]'") from None
    try:
        system, path = url_to_fs(address)
    except (ImportError, ValueError) as error:  # of the package for this protocol, which fsspec names
        raise AudioError(f"{address}: {error}") from None
    return system, path
