"""The sockets that one daemon serves: bound where nobody else is, or where somebody died.

The law of this file: a socket is open to nobody for whom it is not meant, not even for its
first moment.
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
from typing import TYPE_CHECKING

from kwsd import systemd
from kwsd.config import Config, host_and_port, is_loopback
from kwsd.errors import SocketError

if TYPE_CHECKING:
    import ssl  # OpenSSL takes 5 MB: loaded where it is needed

_LOCK_SECONDS = 2.0
_BACKLOG = 1024
ACCEPTED_AT_ONCE = 32
"""For asyncio's servers, whose `backlog` this is: with no descriptor left they try so often in a row (Python 3.11)."""

_MOST_DESCRIPTORS = 65536
_SPARE_DESCRIPTORS = 64  # for all that is not a connection
_MIN_TOKEN_BYTES = 16


@dataclass
class Door:
    """A socket through which subscribers come.

    Attributes:
        listener: bound, and listening.
        token: what a subscriber must show first; None for nothing.
        tls: with the certificate; None for plain text.
        removed: the Unix socket's path, if it ends with the daemon.
    """

    listener: socket.socket
    token: bytes | None = field(default=None, repr=False)
    tls: "ssl.SSLContext | None" = None
    removed: Path | None = None

    @property
    def address(self) -> str:
        """A path, or HOST:PORT."""
        name = self.listener.getsockname()
        return name if isinstance(name, str) else f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def open_doors(config: Config) -> list[Door]:
    """All through which subscribers may come; systemd's socket, if it passed one, in place of our own.

    Raises:
        SocketError: one of them cannot be opened; then none is.
    """
    token, tls = tcp_secrets(config)
    tcp = [Door(bind_tcp(config.tcp), token, tls)] if config.tcp else []
    try:
        if passed := systemd.activated():
            return [_passed_door(listener, token, tls) for listener in passed] + tcp
        listener = bind_unix(config.socket, config)
        return [Door(listener, removed=config.socket), *tcp]
    except SocketError:
        for door in tcp:
            door.listener.close()
        raise


def renew(doors: list[Door], config: Config) -> None:
    """Read the token and the certificate again, for who comes from now on.

    Raises:
        SocketError: one of them cannot be used; nothing is changed.
    """
    token, tls = tcp_secrets(config)
    for door in doors:
        if door.listener.family != socket.AF_UNIX:
            door.token = token
            if door.tls and tls:
                _load(door.tls, config)


def keep_alive(connection: socket.socket) -> None:
    """Notice within two minutes that the other machine has gone without a word."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _passed_door(listener: socket.socket, token: bytes | None, tls: "ssl.SSLContext | None") -> Door:
    """systemd's socket, under the same rules as our own."""
    if listener.family == socket.AF_UNIX:
        return Door(listener)
    door = Door(listener, token, tls)
    if token is None and not is_loopback(door.address):
        raise SocketError(f"{door.address}: is open to other machines; name a token_file that they must know")
    return door


def tcp_secrets(config: Config) -> "tuple[bytes | None, ssl.SSLContext | None]":
    """The token and the certificate that are configured.

    Raises:
        SocketError: one of them cannot be used.
    """
    token = _read_token(config.token_file) if config.token_file else None
    if not config.tls_certificate:
        return token, None
    import ssl

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(tls, config)
    return token, tls


def bind_unix(path: Path, config: Config) -> socket.socket:
    """As `bind`, for those for whom the configuration's sockets are."""
    return bind(path, int(config.socket_mode, 8), config.socket_group)


def bind(path: Path, mode: int = 0o660, group: str | None = None) -> socket.socket:
    """A listening socket at a path that is free, or holds the socket of a daemon that died.

    Args:
        mode: who may connect, as for `chmod`; group: whose it is; None for the daemon's own.

    Raises:
        SocketError: no folder, no permission, no such group, another file, or a live daemon.
    """
    with _alone_in(path.parent):
        _remove_stale(path)
        return _listen(path, mode, group)


def bind_tcp(address: str) -> socket.socket:
    """A listening socket on HOST:PORT.

    Raises:
        SocketError: no such host here, or somebody else has the port.
    """
    host, port = host_and_port(address)
    try:
        return socket.create_server((host, port), family=_family(host), backlog=_BACKLOG)
    except OSError as error:
        raise SocketError(f"{address}: cannot be bound ({error.strerror or error}); choose another address") from None


def queue_many(listener: socket.socket) -> None:
    """Once a server of asyncio has it: more connections may wait than it accepts at once."""
    listener.listen(_BACKLOG)


def most_connections() -> int:
    """How many subscribers, and how many senders of audio, can be served: half of the descriptors each.

    The soft limit of open files is raised as far as it may go, or matters.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, (soft - _SPARE_DESCRIPTORS) // 2)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _read_token(path: Path) -> bytes:
    """The secret in a file, which others must not be able to read."""
    try:
        token = path.read_bytes().strip()
        everybody = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}; it must hold the token") from None
    if everybody:
        raise SocketError(f"{path}: everybody can read the token; chmod o-r it")
    try:
        token.decode()
    except ValueError:
        raise SocketError(f"{path}: not text, as a token must be; make one: openssl rand -hex 32 > {path}") from None
    if len(token) < _MIN_TOKEN_BYTES:
        raise SocketError(f"{path}: too short for a token; make one: openssl rand -hex 32 > {path}")
    return token


def _load(tls: "ssl.SSLContext", config: Config) -> None:
    try:
        tls.load_cert_chain(config.tls_certificate or "", config.tls_key, password="")  # none, rather than a question
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        names = f"{config.tls_certificate}, {config.tls_key}"
        raise SocketError(f"{names}: not a certificate and its key, in PEM ({reason})") from None


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


def _listen(path: Path, mode: int, group: str | None) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_umask = os.umask(0o777 & ~mode)  # as it shall be from its first moment
    try:
        listener.bind(str(path))
        _give_to(path, group)
        listener.listen(_BACKLOG)
    except SocketError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise SocketError(f"{path}: cannot be bound ({error.strerror or error}); choose another --socket") from None
    finally:
        os.umask(old_umask)
    return listener


def _give_to(path: Path, group: str | None) -> None:
    if group is None:
        return
    try:
        shutil.chown(path, group=group)
    except (LookupError, PermissionError) as error:
        path.unlink()
        reason = "there is no such group" if isinstance(error, LookupError) else "kwsd is no member of it, or may not"
        raise SocketError(f"{path}: cannot be given to group {group} ({reason})") from None


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketError(f"{path}: is there and is not a socket; choose another --socket, or remove it")
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
