"""Unix sockets that one daemon serves: bound where nobody else is, or where somebody died."""

import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kwsd.errors import SocketError

_LOCK_SECONDS = 2.0
_BACKLOG = 1024


def bind(path: Path) -> socket.socket:
    """A listening socket at a path that is free, or holds the socket of a daemon that died.

    Raises:
        SocketError: no folder, no permission, another file, or a live daemon.
    """
    with _alone_in(path.parent):
        _remove_stale(path)
        return _listen(path)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Of two daemons that find the same stale socket, one at a time may look and replace it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SocketError(f"{folder}: {error.strerror}; create this folder or choose another --socket") from None
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o117)  # 0660 from its first moment
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SocketError(f"{path}: cannot be bound ({error.strerror or error}); choose another --socket") from None
    finally:
        os.umask(old_umask)
    return listener


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path}: is a file that is not a socket; remove it or choose another --socket")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None
    if is_live(path):
        raise SocketError(f"{path}: another kwsd is serving it; stop that one or choose another --socket")
    path.unlink(missing_ok=True)


def is_live(path: Path) -> bool:
    """Whether somebody accepts connections there.

    Raises:
        SocketError: that cannot be found out.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (TimeoutError, BlockingIOError):
            return True  # its backlog is full: alive and busy
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError as error:
            raise SocketError(f"{path}: {error.strerror or error}; choose another --socket") from None
    return True
