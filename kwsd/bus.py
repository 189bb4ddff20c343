"""The bus: numbers events and hands each to every subscriber, none of whom can hold it up.

The law of this file: it lives on one event loop. Publishing never waits; a subscriber that
does not keep up loses its own oldest events, and is told how many.
"""

import asyncio
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from kwsd.events import Event, Lagged, Published

_PublishedEvent = TypeVar("_PublishedEvent", bound=Published)

QUEUE_EVENTS = 1000
"""Events that wait for one subscriber: minutes of the liveliest house, some 250 KB."""


class Numbering:
    """Gives published events their number, the run's name and the time."""

    def __init__(self) -> None:
        self.boot_id = uuid4().hex
        self.next_seq = 0

    def stamp(self, event: _PublishedEvent) -> _PublishedEvent:
        """The same event, with its three fields filled in."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        stamped = replace(event, seq=self.next_seq, boot_id=self.boot_id, time=time)
        self.next_seq += 1
        return stamped


class Subscription:
    """One subscriber's bounded queue of encoded lines."""

    def __init__(self, max_events: int = QUEUE_EVENTS) -> None:
        self._lines: deque[bytes] = deque()
        self._max_events = max_events
        self._n_lost = 0
        self._closed = False
        self._ready = asyncio.Event()

    def put(self, line: bytes) -> None:
        """Add a line; the oldest goes when the queue is full."""
        if len(self._lines) >= self._max_events:
            self._lines.popleft()
            self._n_lost += 1
        self._lines.append(line)
        self._ready.set()

    def close(self) -> None:
        """No more lines will come; what waits can still be taken."""
        self._closed = True
        self._ready.set()

    async def take(self) -> bytes:
        """All that waits, as soon as there is something; empty when closed and taken."""
        await self._ready.wait()
        if self._n_lost:
            self._lines.appendleft(encode(Lagged(n_lost=self._n_lost)))
            self._n_lost = 0
        taken = b"".join(self._lines)
        self._lines.clear()
        if not self._closed:
            self._ready.clear()
        return taken


class Bus:
    """Fan-out to all subscriptions."""

    def __init__(self) -> None:
        self.numbering = Numbering()
        self._subscriptions: set[Subscription] = set()

    def publish(self, event: Published) -> None:
        """Number an event, encode it once and queue it for everybody."""
        line = encode(self.numbering.stamp(event))
        for subscription in self._subscriptions:
            subscription.put(line)

    def subscribe(self) -> Subscription:
        """A queue that gets every event from now on."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def close(self) -> None:
        """Let every subscriber take what waits for it, and end."""
        for subscription in self._subscriptions:
            subscription.close()


def encode(event: Event) -> bytes:
    """An event as it travels: one line of UTF-8."""
    return event.to_json().encode() + b"\n"
