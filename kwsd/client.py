"""For programs that want to know which keyword was said.

from kwsd import DetectionEvent, subscribe

for event in subscribe():
    if isinstance(event, DetectionEvent):
        print(event.label, event.score)

Law: `subscribe` and `subscribe_async` stay subscribed. When the daemon ends or the connection
breaks, they reconnect as soon as a daemon serves again, and then receive what they missed, each
event exactly once. Events that the daemon no longer has are reported as a `Gap`.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from kwsd.errors import SocketError
from kwsd.plain import plain
from kwsd.protocol.address import LINE_BYTES, ServerAddress
from kwsd.protocol.events import (
    PROTOCOL,
    Error,
    Event,
    Gap,
    Goodbye,
    Hello,
    Position,
    Published,
    Subscribed,
    parse_event,
)
from kwsd.protocol.subscription import Since, Subscription

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5)
_GREETING_SECONDS = 60.0
"""A running daemon greets at once. One that systemd starts for the connection greets when its source is open."""

_MOST_UNANSWERED = 3
"""Connections in a row that a server closes without a word, until a client stops showing its token in plain text. A
daemon that is being restarted may close one."""


def subscribe(
    address: Path | str | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
    scores: bool = False,
    near_misses: bool = False,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
    reconnect: bool = True,
) -> Iterator[Event]:
    """Yield events as they happen; each connection begins with its `Hello`.

    Args:
        address: path of the daemon's socket, or HOST:PORT; None for the default path.
        labels: only detections of these keywords.
        streams: only events of these streams, and events without a stream.
        since: the last event that was seen earlier; the events after it come first.
        scores, near_misses: also yield the running scores, one event for each stride; and near misses.
        token: for a daemon that requires one.
        tls: for a daemon that uses TLS: `ssl.create_default_context(cafile=CERTIFICATE)`.
        reconnect: False ends with the daemon's `Goodbye`.

    Raises:
        SocketError: no daemon serves there at first; it refuses, speaks another protocol, or, with a token and
            no TLS, was silent three times in a row; without `reconnect`, the connection broke.
    """
    server, wanted = ServerAddress.at(address, token, tls), (labels, streams, since, scores, near_misses)
    session, connection = _Session(server, _subscription(*wanted)), server.connect()
    while True:
        reason = f"{server}: the daemon ended without a goodbye"
        with closing(connection), connection.makefile("rb") as lines:
            try:
                connection.sendall(server.introduction)
                connection.settimeout(_GREETING_SECONDS)
                while (line := _read_line(lines, session)).endswith(b"\n"):
                    connection.settimeout(None)
                    request, events = session.receive(line)
                    if request:
                        connection.sendall(request)
                    yield from events
                    if not reconnect and any(isinstance(event, Goodbye) for event in events):
                        return
            except (_BrokenError, OSError) as error:
                reason = str(error)
        session.end_connection()
        if not reconnect:
            raise SocketError(reason)
        connection = _reconnect(session)


async def subscribe_async(
    address: Path | str | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
    scores: bool = False,
    near_misses: bool = False,
    token: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Event]:
    """As `subscribe`, on an event loop. It always reconnects."""
    server = ServerAddress.at(address, token, tls)
    session = _Session(server, _subscription(labels, streams, since, scores, near_misses))
    reader, writer = await server.open()
    while True:
        try:
            writer.write(server.introduction)
            seconds: float | None = _GREETING_SECONDS
            while (line := await _read_line_async(reader, session, seconds)).endswith(b"\n"):
                seconds = None
                request, events = session.receive(line)
                if request:
                    writer.write(request)
                for event in events:
                    yield event
        except (_BrokenError, OSError):
            pass
        finally:
            writer.close()
        session.end_connection()
        reader, writer = await _reconnect_async(session)


def _subscription(
    labels: Iterable[str] | None, streams: Iterable[str] | None, since: Since | None, scores: bool, near_misses: bool
) -> Subscription:
    return Subscription(
        labels=None if labels is None else frozenset(labels),
        streams=None if streams is None else frozenset(streams),
        since=since,
        scores=scores,
        near_misses=near_misses,
    )


class _BrokenError(SocketError):
    """The connection broke, and may be made again."""


class _Session:
    """What the client remembers from one connection to the next."""

    def __init__(self, server: ServerAddress, subscription: Subscription) -> None:
        self.server, self._subscription = server, subscription
        self._is_waiting = False  # for the answer to a subscription
        self._first_seq = 0  # of the events that follow the answer
        self._n_failures = 0
        self._n_unanswered = 0  # connections in a row that ended before the server said anything
        self._is_answered = False
        self._boot_id = ""  # of the last daemon that greeted

    def pause(self) -> float:
        """Seconds to wait before the next connection; longer after each failure."""
        seconds = _RETRY_SECONDS[min(self._n_failures, len(_RETRY_SECONDS) - 1)]
        self._n_failures += 1
        return seconds

    def end_connection(self) -> None:
        """A connection has ended.

        Raises:
            SocketError: the server said nothing, and either no daemon ever greeted there, or the token
                went in plain text to this silent server `_MOST_UNANSWERED` times in a row.
        """
        self._n_unanswered = 0 if self._is_answered else self._n_unanswered + 1
        self._is_answered = False
        shows_token = self.server.token is not None and self.server.tls is None
        if self._n_unanswered and (not self._boot_id or (shows_token and self._n_unanswered >= _MOST_UNANSWERED)):
            raise self._no_greeting("closed the connection without a greeting")

    def late(self) -> SocketError:
        """The error for a line that does not come. Where a daemon greeted before, the client reconnects."""
        if self._is_answered:
            return _BrokenError(f"{self.server}: the connection broke (no answer)")
        error = self._no_greeting(f"no greeting in {_GREETING_SECONDS:g} s")
        return _BrokenError(str(error)) if self._boot_id else error

    def _no_greeting(self, what: str) -> SocketError:
        advice = "no kwsd serves there, or it uses TLS and its certificate is needed (kwsd listen --tls-ca)"
        return SocketError(f"{self.server}: {what}; {advice}")

    def receive(self, line: bytes) -> tuple[bytes, list[Event]]:
        """Process a line from the daemon: what to send to it now, and the events for the caller.

        Raises:
            SocketError: the line is not kwsd's protocol, or the daemon refuses.
        """
        try:
            event = parse_event(line)
        except ValueError as error:
            raise SocketError(f"{self.server}: {error}") from None
        if not self._is_answered and not isinstance(event, Hello | Error):
            raise SocketError(f"{self.server}: its first line is no greeting; the server is not kwsd")
        self._is_answered = True
        match event:
            case Error():
                kind = _BrokenError if event.retryable and self._boot_id else SocketError
                raise kind(f"{self.server}: {plain(event.reason)}")
            case Hello() if event.protocol != PROTOCOL:
                raise SocketError(
                    f"{self.server}: speaks protocol {event.protocol}, this kwsd {PROTOCOL}; install the newer kwsd"
                )
            case Hello():
                return self._greeted(event), [event]
            case Subscribed():
                self._is_waiting, self._first_seq = False, event.next_seq
                return b"", []
            case _ if self._is_waiting:  # sent before the daemon knew the subscription; it will be sent again
                return b"", []
            case Gap():  # was reported; what follows begins behind it
                self._set_since(Since(self._boot_id, self._first_seq - 1))
            case Position():
                self._set_since(Since(self._boot_id, event.next_seq - 1))
                return b"", []
            case Published():
                self._set_since(Since(event.boot_id, event.seq))
        return b"", [event]

    def _greeted(self, hello: Hello) -> bytes:
        """The subscription to send; nothing, if the client wants every event from now on."""
        self._n_failures, self._boot_id = 0, hello.boot_id
        is_plain = self._subscription == Subscription()
        if self._subscription.since is None:  # a resume before the first event must not skip any
            self._set_since(Since(hello.boot_id, hello.next_seq - 1))
        if is_plain:
            return b""
        self._is_waiting = True
        return self._subscription.to_json().encode() + b"\n"

    def _set_since(self, since: Since) -> None:
        self._subscription = replace(self._subscription, since=since)


def _read_line(lines: BinaryIO, session: _Session) -> bytes:
    try:
        line = lines.readline(LINE_BYTES)
    except TimeoutError:
        raise session.late() from None
    except OSError as error:
        raise _BrokenError(f"{session.server}: the connection broke ({error.strerror})") from None
    if len(line) == LINE_BYTES:
        raise _endless_line(session.server)
    return line


async def _read_line_async(reader: asyncio.StreamReader, session: _Session, seconds: float | None) -> bytes:
    try:
        async with asyncio.timeout(seconds):
            return await reader.readline()
    except TimeoutError:
        raise session.late() from None
    except ValueError:  # longer than the reader's limit
        raise _endless_line(session.server) from None


def _endless_line(server: ServerAddress) -> SocketError:
    return SocketError(f"{server}: sent a line without an end; the server is not kwsd")


def _reconnect(session: _Session) -> socket.socket:
    """Try until a daemon serves again."""
    while True:
        time.sleep(session.pause())
        with suppress(SocketError):
            return session.server.connect()


async def _reconnect_async(session: _Session) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        await asyncio.sleep(session.pause())
        with suppress(SocketError):
            return await session.server.open()
