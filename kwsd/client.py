"""For programs that want to know what was said.

from kwsd.client import subscribe

for event in subscribe():
    if event.type == "detection":
        print(event.label, event.score)

Both forms, `subscribe` and `subscribe_async`, stay subscribed: when the daemon ends or the
connection breaks, they come back as soon as somebody serves again, and are told what they
missed exactly once. What is gone for good is a `Gap`.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from errno import EACCES, EPERM
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kwsd.config import default_socket, host_and_port, unix_path
from kwsd.errors import SocketError
from kwsd.events import Error, Event, Goodbye, Hello, Published, Subscribed, parse_event
from kwsd.requests import Since
from kwsd.sockets import keep_alive

if TYPE_CHECKING:
    import ssl

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5)
_LINE_BYTES = 2**20
_TIMEOUT_SECONDS = 10.0
_GREETING_SECONDS = 60.0
"""A daemon greets at once, one that systemd starts for the connection when its source is open."""


def subscribe(
    address: Path | str | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
    scores: bool = False,
    token: str | None = None,
    tls: "ssl.SSLContext | None" = None,
    reconnect: bool = True,
) -> Iterator[Event]:
    """Yield events as they happen, each connection's from its `Hello` on.

    Args:
        address: path of the daemon's socket, or HOST:PORT; None for the default path.
        labels: only detections of these.
        streams: only events of these, and those of no stream.
        since: the last event that was seen earlier; what happened after it comes first.
        scores: the running scores too, one event for each stride.
        token: where the daemon wants one; tls: where it speaks TLS, `ssl.create_default_context`
            with its certificate.
        reconnect: False ends with the daemon's `Goodbye`.

    Raises:
        SocketError: nobody serves there at first, it refuses, or what comes is not kwsd's
            protocol; without `reconnect` also when the connection breaks.
    """
    server = _Server.at(address, token, tls)
    following = _Following(server, labels, streams, since, scores)
    connection = _connect(server)
    while True:
        with closing(connection), connection.makefile("rb") as lines:
            try:
                connection.sendall(server.introduction)
                connection.settimeout(_GREETING_SECONDS)
                while (line := _read_line(lines, following)).endswith(b"\n"):
                    connection.settimeout(None)
                    request, events = following.receive(line)
                    if request:
                        connection.sendall(request)
                    yield from events
                    if not reconnect and any(isinstance(event, Goodbye) for event in events):
                        return
                if not reconnect:
                    raise SocketError(f"{server}: the daemon ended without a goodbye")
            except (_BrokenError, OSError) as error:
                if not reconnect:
                    raise SocketError(str(error)) from None
        connection = _connect_again(server, following)


async def subscribe_async(
    address: Path | str | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
    scores: bool = False,
    token: str | None = None,
    tls: "ssl.SSLContext | None" = None,
) -> AsyncIterator[Event]:
    """As `subscribe`, on an event loop."""
    server = _Server.at(address, token, tls)
    following = _Following(server, labels, streams, since, scores)
    was_there = False
    while True:
        try:
            reader, writer = await server.open()
        except OSError as error:
            if not was_there:
                raise _nobody(server, error) from None
            await asyncio.sleep(following.pause())
            continue
        was_there = True
        try:
            writer.write(server.introduction)
            seconds: float | None = _GREETING_SECONDS
            while (line := await _read_line_async(reader, following, seconds)).endswith(b"\n"):
                seconds = None
                request, events = following.receive(line)
                if request:
                    writer.write(request)
                for event in events:
                    yield event
        except (_BrokenError, OSError):
            pass
        finally:
            writer.close()
        await asyncio.sleep(following.pause())


@dataclass(frozen=True)
class _Server:
    """Where a daemon serves, and what one must show there."""

    path: Path | None
    host: str
    port: int
    token: str | None
    tls: "ssl.SSLContext | None"

    @classmethod
    def at(cls, address: Path | str | None, token: str | None, tls: "ssl.SSLContext | None") -> "_Server":
        address = str(address or default_socket())
        path = unix_path(address)
        try:
            return cls(path, *(("", 0) if path else host_and_port(address)), token, tls)
        except ValueError as error:
            raise SocketError(f"{error}, nor a path") from None

    @property
    def introduction(self) -> bytes:
        """What to send first."""
        shown = {"type": "authenticate", "token": self.token}
        return b"" if self.token is None else json.dumps(shown).encode() + b"\n"

    def connect(self) -> socket.socket:
        if not self.path:
            connection = socket.create_connection((self.host, self.port), _TIMEOUT_SECONDS)
            keep_alive(connection)
            connection.settimeout(_TIMEOUT_SECONDS if self.tls else None)
            secure = self.tls.wrap_socket(connection, server_hostname=self.host) if self.tls else connection
            secure.settimeout(None)
            return secure
        self._refuse_foreign()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.path))
        except OSError:
            connection.close()
            raise
        return connection

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.path:
            self._refuse_foreign()
            return await asyncio.open_unix_connection(self.path, limit=_LINE_BYTES)
        reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls, limit=_LINE_BYTES)
        keep_alive(writer.get_extra_info("socket"))
        return reader, writer

    def _refuse_foreign(self) -> None:
        """Where nobody has said which socket, and anybody may have made this one."""
        if self.path == default_socket() and self.path.lstat().st_uid not in (0, os.getuid()):
            raise PermissionError(EPERM, "it is another user's")

    def __str__(self) -> str:
        return str(self.path or f"{self.host}:{self.port}")


class _BrokenError(SocketError):
    """A connection that may be made again."""


class _Following:
    """What a subscriber knows, from one connection to the next."""

    def __init__(
        self,
        server: _Server,
        labels: Iterable[str] | None,
        streams: Iterable[str] | None,
        since: Since | None,
        scores: bool,
    ) -> None:
        self.server, self._since = server, since
        self._wanted: dict[str, object] = {
            key: sorted(names) for key, names in (("labels", labels), ("streams", streams)) if names is not None
        }
        if scores:
            self._wanted["scores"] = True
        self._asking = False
        self._n_failures = 0
        self._boot_id = ""  # of the daemon that was there last

    def pause(self) -> float:
        """Seconds to wait before the next connection, more and more while nobody serves."""
        seconds = _RETRY_SECONDS[min(self._n_failures, len(_RETRY_SECONDS) - 1)]
        self._n_failures += 1
        return seconds

    def silent(self) -> SocketError:
        """What is wrong with a connection on which nobody greets; it may be made again where a daemon was before."""
        kind = _BrokenError if self._boot_id else SocketError
        advice = "no kwsd serves there, or it speaks TLS and its certificate is needed (kwsd listen --tls-ca)"
        return kind(f"{self.server}: no greeting in {_GREETING_SECONDS:g} s; {advice}")

    def receive(self, line: bytes) -> tuple[bytes, list[Event]]:
        """A line of the daemon: what to send it now, and what the subscriber is told.

        Raises:
            SocketError: not kwsd's protocol, or the daemon refuses.
        """
        try:
            event = parse_event(line)
        except ValueError as error:
            raise SocketError(f"{self.server}: {error}") from None
        if isinstance(event, Error):
            kind = _BrokenError if event.passing and self._boot_id else SocketError
            raise kind(f"{self.server}: {event.reason}")
        if isinstance(event, Hello):
            self._n_failures, self._boot_id = 0, event.boot_id
            request = self._ask(event)
            if self._since is None:  # so that nothing is missed that happens before the first event comes
                self._since = Since(event.boot_id, event.next_seq - 1)
            return request, [event]
        if isinstance(event, Subscribed):
            if not self._asking:  # all before it was for others
                self._since = Since(self._boot_id, event.next_seq - 1)
            self._asking = False
            return b"", []
        if self._asking:  # on its way before the daemon knew what we want; it comes again
            return b"", []
        if isinstance(event, Published):
            self._since = Since(event.boot_id, event.seq)
        return b"", [event]

    def _ask(self, hello: Hello) -> bytes:
        """What to ask for: nothing, if all from now on is wanted."""
        if self._since is None and not self._wanted:
            return b""
        since = self._since or Since(hello.boot_id, hello.next_seq - 1)
        self._asking = True
        request = {"type": "subscribe", **self._wanted, "since": {"boot_id": since.boot_id, "seq": since.seq}}
        return json.dumps(request).encode() + b"\n"


def _read_line(lines: BinaryIO, following: _Following) -> bytes:
    try:
        line = lines.readline(_LINE_BYTES)
    except TimeoutError:
        raise following.silent() from None
    except OSError as error:
        raise _BrokenError(f"{following.server}: the connection broke ({error.strerror})") from None
    if len(line) == _LINE_BYTES:
        raise _foreign(following.server)
    return line


async def _read_line_async(reader: asyncio.StreamReader, following: _Following, seconds: float | None) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await reader.readline()
    except TimeoutError:
        raise following.silent() from None
    except ValueError:  # longer than the reader's limit
        raise _foreign(following.server) from None


def _foreign(server: _Server) -> SocketError:
    return SocketError(f"{server}: a line without an end; it is no kwsd that serves there")


def _connect_again(server: _Server, following: _Following) -> socket.socket:
    """As soon as somebody serves."""
    while True:
        time.sleep(following.pause())
        with suppress(SocketError):
            return _connect(server)


def _connect(server: _Server) -> socket.socket:
    try:
        return server.connect()
    except OSError as error:
        raise _nobody(server, error) from None


def _nobody(server: _Server, error: OSError) -> SocketError:
    if type(error).__module__ == "ssl":  # which is loaded only by who uses it
        advice = "TLS failed ({reason}); check the certificate, and whether the daemon has tls_certificate"
    elif error.errno == EACCES:
        advice = "you may not connect ({reason}); become a member of the socket's group, and log in anew"
    else:
        advice = "no kwsd to subscribe to ({reason}); start one with `kwsd run`"
    return SocketError(f"{server}: {advice.format(reason=error.strerror or error)}")
