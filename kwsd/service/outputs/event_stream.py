"""Server-sent events: the protocol's JSON for browsers. `Last-Event-ID` resumes, as `since` does on a socket.

Source: the HTML standard, "Server-sent events".
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.requests import Request

from kwsd.protocol.subscription import Since, Subscription
from kwsd.service.control import Control

_UNREAD_BYTES = 64 * 1024  # beyond this, the subscriber's queue fills
_HEARTBEAT_SECONDS = 15.0
_SEQ_WITHIN = 60  # bytes of a line: `seq` is its second key
_SETTINGS = b"event: settings\ndata: {}\n\n"


class EventStream:
    """One browser's connection. It is in `open_streams` while it lasts."""

    def __init__(self, control: Control, subscription: Subscription, open_streams: set["EventStream"]) -> None:
        self._control, self._subscription, self._open_streams = control, subscription, open_streams
        self._pending = bytearray()
        self._changed = asyncio.Event()
        self._is_ending = False

    async def frames(self) -> AsyncIterator[bytes]:
        """The body of the response, until the browser has gone or the daemon ends."""
        bus = self._control.bus
        self._open_streams.add(self)
        self._control.listeners.append(self._tell_settings)
        self._greet()
        self._subscriber = bus.subscribe(self._write)
        try:
            bus.resume(self._subscriber, self._subscription)
            while self._pending or not self._is_ending:
                frames, self._pending = bytes(self._pending), bytearray()
                yield frames or b":\n\n"  # a comment shows whether the browser is still there
                self._subscriber.release()
                await self._wait()
        finally:
            self._open_streams.discard(self)
            self._control.listeners.remove(self._tell_settings)
            bus.unsubscribe(self._subscriber)

    def end(self) -> None:
        """End once everything is sent."""
        self._is_ending = True
        self._changed.set()

    async def _wait(self) -> None:
        """Wait for something to send, but not for long."""
        if not self._pending and not self._is_ending:
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_HEARTBEAT_SECONDS):
                    await self._changed.wait()

    def _greet(self) -> None:
        """Begin with the greeting. Its id is the last event's, unless the missed events follow."""
        hello = self._control.hello()
        if not self._subscription.since:
            self._pending += f"id: {hello.boot_id}:{hello.next_seq - 1}\n".encode()
        self._pending += b"data: " + hello.to_json().encode() + b"\n\n"

    def _write(self, lines: bytes) -> None:
        boot_id = self._control.bus.numbering.boot_id
        for line in lines.splitlines():
            self._pending += _frame(line, boot_id)
        self._changed.set()
        if len(self._pending) > _UNREAD_BYTES:
            self._subscriber.hold()

    def _tell_settings(self) -> None:
        if len(self._pending) < _UNREAD_BYTES:
            self._pending += _SETTINGS
        self._changed.set()


def _frame(line: bytes, boot_id: str) -> bytes:
    """A line of the protocol as a server-sent event. Numbered events have an id, and positions that of the last one."""
    number = b""
    if b'"seq":' in line[:_SEQ_WITHIN]:
        number = f"id: {boot_id}:{json.loads(line)['seq']}\n".encode()
    elif line.startswith(b'{"type":"position"'):
        number = f"id: {boot_id}:{json.loads(line)['next_seq'] - 1}\n".encode()
    return number + b"data: " + line + b"\n\n"


def subscription_of(request: Request) -> Subscription:
    """What a browser asks for: `?labels=stop,go&streams=hall&scores=1&near_misses=1`, and `Last-Event-ID`.

    Raises:
        ValueError: an id of another form.
    """
    query = request.query_params

    def names(key: str) -> frozenset[str] | None:
        return frozenset(filter(None, query[key].split(","))) if key in query else None

    last = request.headers.get("last-event-id") or query.get("since")
    return Subscription(
        labels=names("labels"),
        streams=names("streams"),
        since=Since.parse(last) if last else None,
        scores=query.get("scores") == "1",
        near_misses=query.get("near_misses") == "1",
    )
