"""Addresses: the path of a Unix socket, or HOST:PORT; and how a client connects to one."""

import asyncio
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from errno import EACCES, EPERM
from pathlib import Path

from kwsd.errors import SocketError
from kwsd.protocol.subscription import token_line
from kwsd.typed import expand

LINE_BYTES = 2**20
"""Longest line that a client accepts."""

_TIMEOUT_SECONDS = 10.0


def default_socket() -> Path:
    """`kwsd.sock` in the folder that systemd or the login session provides, else in /tmp."""
    folder = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR")
    return Path(folder) / "kwsd.sock" if folder else Path(f"/tmp/kwsd-{os.getuid()}.sock")


def unix_path(address: str) -> Path | None:
    """The path, if the address is one; None for HOST:PORT. An address with a slash is a path."""
    is_port = address.rpartition(":")[2].isdecimal() and "/" not in address
    return None if is_port else expand(address)


def host_and_port(address: str) -> tuple[str, int]:
    """The two parts of HOST:PORT, or [HOST]:PORT.

    Raises:
        ValueError: the address has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or len(port) > 20 or int(port) >= 65536:
        raise ValueError(f"{address!r} is not HOST:PORT")
    host = host.removeprefix("[").removesuffix("]")
    try:
        host = str(ipaddress.ip_address(host))  # one spelling for each address: [0::0] is [::]
    except ValueError:
        try:
            host.encode("idna")  # as Python does when it connects
        except UnicodeError:
            raise ValueError(f"{address!r:.200} is not HOST:PORT") from None
    return host, int(port)


def joined_host_port(host: str, port: int) -> str:
    """HOST:PORT, or [HOST]:PORT for an address of IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach HOST:PORT.

    Raises:
        ValueError: as `host_and_port`.
    """
    host, _ = host_and_port(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def keep_alive(connection: socket.socket) -> None:
    """Detect within two minutes that the other machine is gone, even if it sent no goodbye."""
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@dataclass(frozen=True)
class ServerAddress:
    """Where a daemon serves, and what it requires from clients."""

    path: Path | None
    host: str
    port: int
    token: str | None
    tls: ssl.SSLContext | None

    @classmethod
    def at(cls, address: Path | str | None, token: str | None, tls: ssl.SSLContext | None) -> "ServerAddress":
        address = str(address or default_socket())
        path = unix_path(address)
        try:
            return cls(path, *(("", 0) if path else host_and_port(address)), token, tls)
        except ValueError as error:
            raise SocketError(f"{error}, nor a path") from None

    @property
    def introduction(self) -> bytes:
        """What the client sends first."""
        return b"" if self.token is None else token_line(self.token).encode() + b"\n"

    def connect(self) -> socket.socket:
        """Connect to the daemon.

        Raises:
            SocketError: no daemon serves there, or it cannot be reached.
        """
        try:
            return self._connect_unix(self.path) if self.path else self._connect_tcp()
        except OSError as error:
            raise self._unreachable(error) from None

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `connect`, on an event loop."""
        try:
            if self.path:
                self._refuse_foreign(self.path)
                return await asyncio.open_unix_connection(self.path, limit=LINE_BYTES)
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls, limit=LINE_BYTES)
            keep_alive(writer.get_extra_info("socket"))
        except OSError as error:
            raise self._unreachable(error) from None
        return reader, writer

    def _connect_tcp(self) -> socket.socket:
        connection = socket.create_connection((self.host, self.port), _TIMEOUT_SECONDS)
        keep_alive(connection)
        connection.settimeout(_TIMEOUT_SECONDS if self.tls else None)
        secure = self.tls.wrap_socket(connection, server_hostname=self.host) if self.tls else connection
        secure.settimeout(None)
        return secure

    def _connect_unix(self, path: Path) -> socket.socket:
        self._refuse_foreign(path)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError:
            connection.close()
            raise
        return connection

    def _refuse_foreign(self, path: Path) -> None:
        """Refuse another user's socket at the default path: any user can create one in /tmp."""
        if path == default_socket() and path.lstat().st_uid not in (0, os.getuid()):
            raise PermissionError(EPERM, "it belongs to another user")

    def _unreachable(self, error: OSError) -> SocketError:
        if isinstance(error, ssl.SSLError):
            advice = "TLS failed ({reason}); check the certificate, and whether the daemon has tls_certificate"
        elif error.errno == EACCES:
            advice = "permission denied ({reason}); become a member of the socket's group, and log in again"
        elif isinstance(error, ConnectionAbortedError | ConnectionResetError):
            advice = "closed the connection ({reason}); try again"
        else:
            advice = "no kwsd to subscribe to ({reason}); start one with `kwsd run`"
        return SocketError(f"{self}: {advice.format(reason=error.strerror or str(error) or type(error).__name__)}")

    def __str__(self) -> str:
        return str(self.path or joined_host_port(self.host, self.port))
