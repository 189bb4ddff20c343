"""Endpoints: the sockets that a daemon listens on.

Law: a path is bound only if it is free or its owner is dead. A socket has its final permissions
from its first moment on.
"""

import fcntl
import os
import resource
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kwsd.config import Config
from kwsd.errors import SocketError
from kwsd.protocol.address import host_and_port, is_loopback, joined_host_port
from kwsd.service import systemd
from kwsd.service.credentials import Credentials

_LOCK_SECONDS = 2.0
_BACKLOG = 1024
ACCEPTED_AT_ONCE = 32
"""The `backlog` of asyncio's servers: with no descriptors left, Python 3.11 tries to accept this often in a row."""

_MOST_DESCRIPTORS = 65536
_SPARE_DESCRIPTORS = 64  # for everything that is not a connection


@dataclass
class Endpoint:
    """A listening socket for subscribers.

    Attributes:
        listener: bound and listening.
        credentials: token and certificate; a Unix socket has neither.
        removed: path of a Unix socket that is removed at the end.
    """

    listener: socket.socket
    credentials: Credentials = field(default_factory=Credentials)
    removed: Path | None = None

    @property
    def address(self) -> str:
        """A path, or HOST:PORT."""
        name = self.listener.getsockname()
        return name if isinstance(name, str) else joined_host_port(*name[:2])


def open_endpoints(config: Config, credentials: Credentials) -> list[Endpoint]:
    """Open every endpoint for subscribers; a socket that systemd passed replaces the configured Unix socket.

    Raises:
        SocketError: one of them cannot be opened; then no socket of this process stays open.
    """
    tcp = [Endpoint(bind_tcp(config.tcp), credentials)] if config.tcp else []
    try:
        if passed := systemd.activated():
            return [_passed(listener, credentials) for listener in passed] + tcp
        listener = bind_unix(config.socket, config)
        return [Endpoint(listener, removed=config.socket), *tcp]
    except SocketError:
        for endpoint in tcp:
            endpoint.listener.close()
        raise


def bind_unix(path: Path, config: Config) -> socket.socket:
    """A listening socket with the configured mode and group.

    The path must be free, or hold the socket of a dead daemon.

    Raises:
        SocketError: no folder, no permission, no such group, another file, or a live daemon.
    """
    with _lock(path.parent):
        _remove_stale(path)
        return _listen(path, int(config.socket_mode, 8), config.socket_group)


def bind_tcp(address: str) -> socket.socket:
    """A listening socket on HOST:PORT.

    Raises:
        SocketError: this machine has no such host, or the port is in use.
    """
    host, port = host_and_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    is_both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=is_both)
    except OSError as error:
        reason = (
            os.strerror(error.errno) if error.errno and error.errno > 0 else error
        )  # its own text repeats the address
        raise SocketError(f"{address}: cannot be bound ({reason}); choose another address") from None


def extend_backlog(listener: socket.socket) -> None:
    """Let more connections wait than asyncio accepts at once. Call it after asyncio has the listener."""
    listener.listen(_BACKLOG)


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files as far as permitted, or useful.

    Returns:
        how many subscribers, and how many senders of audio, can be served: half of the descriptors each.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    useful = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < useful:
        resource.setrlimit(resource.RLIMIT_NOFILE, (useful, hard))
    return max(1, (useful - _SPARE_DESCRIPTORS) // 2)


def remove_socket(path: Path, inode: int) -> None:
    """Remove a Unix socket, unless another daemon has replaced it."""
    if path.exists() and path.stat().st_ino == inode:
        path.unlink(missing_ok=True)


def is_live(path: Path) -> bool:
    """Whether a daemon accepts connections at a path.

    Raises:
        SocketError: that cannot be determined.
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
            raise SocketError(f"{path}: {error.strerror or error}; choose another path") from None
    return True


def _passed(listener: socket.socket, credentials: Credentials) -> Endpoint:
    """The endpoint of a socket from systemd, under the same rules as kwsd's own."""
    if listener.family == socket.AF_UNIX:
        return Endpoint(listener)
    endpoint = Endpoint(listener, credentials)
    if credentials.token is None and not is_loopback(endpoint.address):
        raise SocketError(f"{endpoint.address}: is open to other machines; set token_file")
    return endpoint


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one daemon at a time look at a stale socket and replace it.

    Any user can lock /tmp, so after `_LOCK_SECONDS` the daemon goes on without the lock.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SocketError(f"{folder}: {error.strerror}; create this folder or choose another path") from None
    try:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(descriptor) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _listen(path: Path, mode: int, group: str | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o777 & ~mode)  # so that the socket is created with its final mode
    try:
        listener.bind(str(path))
        _change_group(path, group)
        listener.listen(_BACKLOG)
    except SocketError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise SocketError(f"{path}: cannot be bound ({error.strerror or error}); choose another path") from None
    finally:
        os.umask(old_umask)
    return listener


def _change_group(path: Path, group: str | None) -> None:
    if group is None:
        return
    try:
        shutil.chown(path, group=group)
    except (LookupError, PermissionError) as error:
        path.unlink()
        reason = "no such group" if isinstance(error, LookupError) else "kwsd is not a member, or not permitted"
        raise SocketError(f"{path}: cannot be given to group {group} ({reason})") from None


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path}: already exists and is not a socket; choose another path, or remove it")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}") from None
    if is_live(path):
        raise SocketError(f"{path}: another kwsd is serving it; stop that one or choose another path")
    path.unlink(missing_ok=True)
