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
import socket
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from kwsd.config import default_socket
from kwsd.errors import SocketError
from kwsd.events import Error, Event, Goodbye, Hello, Published, Subscribed, parse_event
from kwsd.requests import Since

_RETRY_SECONDS = (0.1, 0.2, 0.5, 1, 2, 5)


def subscribe(
    path: Path | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
    reconnect: bool = True,
) -> Iterator[Event]:
    """Yield events as they happen, each connection's from its `Hello` on.

    Args:
        path: of the daemon's socket; None for the default one.
        labels: only detections of these.
        streams: only events of these, and those of no stream.
        since: the last event that was seen earlier; what happened after it comes first.
        reconnect: False ends with the daemon's `Goodbye`.

    Raises:
        SocketError: nobody serves there at first, or what comes is not kwsd's protocol; without
            `reconnect` also when the connection breaks.
    """
    path = path or default_socket()
    following = _Following(path, labels, streams, since)
    connection = _connect(path)
    while True:
        with closing(connection), connection.makefile("rb") as lines:
            try:
                while line := _read_line(lines, path):
                    request, events = following.receive(line)
                    if request:
                        connection.sendall(request)
                    yield from events
                    if not reconnect and any(isinstance(event, Goodbye) for event in events):
                        return
                if not reconnect:
                    raise SocketError(f"{path}: the daemon ended without a goodbye")
            except (_BrokenError, OSError) as error:
                if not reconnect:
                    raise SocketError(str(error)) from None
        connection = _connect_again(path)


async def subscribe_async(
    path: Path | None = None,
    *,
    labels: Iterable[str] | None = None,
    streams: Iterable[str] | None = None,
    since: Since | None = None,
) -> AsyncIterator[Event]:
    """As `subscribe`, on an event loop."""
    path = path or default_socket()
    following = _Following(path, labels, streams, since)
    n_failures, was_there = 0, False
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=2**20)
            was_there, n_failures = True, 0
        except OSError as error:
            if not was_there:
                raise _nobody(path, error) from None
            await asyncio.sleep(_RETRY_SECONDS[min(n_failures, len(_RETRY_SECONDS) - 1)])
            n_failures += 1
            continue
        try:
            while line := await reader.readline():
                request, events = following.receive(line)
                if request:
                    writer.write(request)
                for event in events:
                    yield event
        except ConnectionError:
            pass
        finally:
            writer.close()


class _BrokenError(SocketError):
    """A connection that may be made again."""


class _Following:
    """What a subscriber knows, from one connection to the next."""

    def __init__(
        self, path: Path, labels: Iterable[str] | None, streams: Iterable[str] | None, since: Since | None
    ) -> None:
        self._path, self._since = path, since
        self._wanted = {
            key: sorted(names) for key, names in (("labels", labels), ("streams", streams)) if names is not None
        }
        self._asking = False

    def receive(self, line: bytes) -> tuple[bytes, list[Event]]:
        """A line of the daemon: what to send it now, and what the subscriber is told.

        Raises:
            SocketError: not kwsd's protocol, or the daemon refuses.
        """
        try:
            event = parse_event(line)
        except ValueError as error:
            raise SocketError(f"{self._path}: {error}") from None
        if isinstance(event, Error):
            raise SocketError(f"{self._path}: {event.reason}")
        if isinstance(event, Hello):
            return self._ask(event), [event]
        if isinstance(event, Subscribed):
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


def _read_line(lines: BinaryIO, path: Path) -> bytes:
    try:
        return lines.readline()
    except OSError as error:
        raise _BrokenError(f"{path}: the connection broke ({error.strerror})") from None


def _connect_again(path: Path) -> socket.socket:
    """As soon as somebody serves."""
    n_failures = 0
    while True:
        time.sleep(_RETRY_SECONDS[min(n_failures, len(_RETRY_SECONDS) - 1)])
        try:
            return _connect(path)
        except SocketError:
            n_failures += 1


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise _nobody(path, error) from None
    return connection


def _nobody(path: Path, error: OSError) -> SocketError:
    return SocketError(f"{path}: no kwsd to subscribe to ({error.strerror or error}); start one with `kwsd run`")
