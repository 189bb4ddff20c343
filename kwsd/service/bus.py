"""The bus: numbers events and hands each to every subscriber.

Law: the bus lives on one event loop, and publishing never waits. A subscriber that does not keep up
loses its own oldest events, and learns how many.
"""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from kwsd.protocol.events import Event, Gap, Lagged, Position, Published, Scores, Subscribed
from kwsd.protocol.subscription import Since, Subscription

log = logging.getLogger("kwsd")

_PublishedEvent = TypeVar("_PublishedEvent", bound=Published)

QUEUE_EVENTS = 4000
"""Events that may wait for one subscriber: minutes of the liveliest house. An event is encoded once; all queues
hold the same bytes."""

_LINES_AT_ONCE = 64
"""Waiting lines joined for one write. Joining copies them, so only a few at once."""

HISTORY_EVENTS = QUEUE_EVENTS // 2
HISTORY_SECONDS = 3600.0
"""Events kept for subscribers that reconnect: at most this many, so that a resume fits into a queue, and none older."""


class Numbering:
    """Gives published events their number, the run's id, the time and the daemon's name."""

    def __init__(self, host: str | None = None) -> None:
        self.boot_id = uuid4().hex
        self.next_seq = 0
        self.host = host

    def stamp(self, event: _PublishedEvent) -> _PublishedEvent:
        """The same event, with these fields filled in."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        stamped = replace(event, seq=self.next_seq, boot_id=self.boot_id, time=now, host=self.host)
        self.next_seq += 1
        return stamped


class Subscriber:
    """One subscriber: a function that writes to it, and a bounded queue for when it does not read.

    Args:
        write: takes encoded lines. It is not called between `hold` and `release`.

    Attributes:
        subscription: the events that it wants.
    """

    def __init__(self, write: Callable[[bytes], object], max_events: int = QUEUE_EVENTS) -> None:
        self._write, self._max_events = write, max_events
        self._lines: deque[bytes] = deque()
        self._n_lost = 0
        self._is_held = False
        self._known_seq, self._known_at = 0, time.monotonic()
        self.subscription = Subscription()

    def put(self, line: bytes) -> bool:
        """Write a line, or queue it. Returns whether the full queue had to drop its oldest line."""
        if not self._is_held:
            self._write(line)
            return False
        is_full = len(self._lines) >= self._max_events
        if is_full:
            self._lines.popleft()
            self._n_lost += 1
        self._lines.append(line)
        return is_full

    def put_now(self, line: bytes) -> None:
        """Write a line, or drop it: it is worthless later, and must not displace events."""
        if not self._is_held:
            self._write(line)

    def restart(self, subscription: Subscription, lines: list[bytes]) -> None:
        """Replace the subscription, and everything that waits by `lines`."""
        self.subscription = subscription
        self._n_lost = 0
        self._lines = deque(lines)
        if not self._is_held:
            self.release()

    def hold(self) -> None:
        """The subscriber does not read: queue everything."""
        self._is_held = True

    def release(self) -> None:
        """The subscriber reads again: write what waits, and how much was lost, until it is held again."""
        self._is_held = False
        if self._n_lost:
            self._lines.appendleft(encode(Lagged(n_lost=self._n_lost)))
            self._n_lost = 0
        while self._lines and not self._is_held:
            self._write(b"".join(self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))))

    def finish(self) -> None:
        """Write everything that waits, held or not: nothing follows."""
        while self._lines or self._n_lost:
            self.release()

    def skip(self, next_seq: int, now: float) -> None:
        """Skip an event that the subscriber filtered out.

        Occasionally send it the current seq, so that a later resume does not report filtered events
        as a gap.

        Args:
            next_seq: number of the next event.
            now: on the monotonic clock.
        """
        if next_seq - self._known_seq >= HISTORY_EVENTS // 8 or now - self._known_at >= HISTORY_SECONDS / 8:
            self._known_seq, self._known_at = next_seq, now
            self.put_now(encode(Position(next_seq=next_seq)))


class Bus:
    """Fan-out to all subscribers.

    Attributes:
        wants_scores, wants_near_misses: whether any subscriber asked for them.
        n_lagged: events that subscribers lost because they were too slow.
    """

    def __init__(self, host: str | None = None) -> None:
        self.numbering = Numbering(host)
        self.wants_scores = self.wants_near_misses = False
        self.n_lagged = 0
        self._subscribers: set[Subscriber] = set()
        self._history: deque[tuple[float, Published, bytes]] = deque(maxlen=HISTORY_EVENTS)

    @property
    def n_subscribers(self) -> int:
        return len(self._subscribers)

    def publish(self, event: Published) -> Published:
        """Number an event, encode it once and queue it for every subscriber that wants it; returns it as sent."""
        stamped = self.numbering.stamp(event)
        line, now = encode(stamped), time.monotonic()
        self._history.append((now, stamped, line))
        for subscriber in list(self._subscribers):
            try:
                if subscriber.subscription.wants(stamped):
                    self.n_lagged += subscriber.put(line)
                else:
                    subscriber.skip(self.numbering.next_seq, now)
            except Exception:
                self._drop(subscriber)
        return stamped

    def publish_scores(self, event: Scores) -> None:
        """Send scores to the subscribers that asked, each with the labels that it wants."""
        lines: dict[frozenset[str] | None, bytes] = {}
        for subscriber in list(self._subscribers):
            wanted = subscriber.subscription
            if not wanted.scores or not wanted.wants(event):
                continue
            if wanted.labels not in lines:
                scores = {label: score for label, score in event.scores.items() if wanted.wants_label(label)}
                lines[wanted.labels] = encode(replace(event, scores=scores))
            try:
                subscriber.put_now(lines[wanted.labels])
            except Exception:
                self._drop(subscriber)

    def resume(self, subscriber: Subscriber, subscription: Subscription) -> None:
        """Change a subscription: first the events that the subscriber missed, then new ones."""
        missed: list[tuple[Published, bytes]] = []
        gap = None
        if subscription.since:
            missed, gap = self._after(subscription.since)
        lines = [encode(Subscribed(next_seq=self.numbering.next_seq - len(missed)))]
        if gap:
            lines.append(encode(gap))
        subscriber.restart(subscription, lines + [line for event, line in missed if subscription.wants(event)])
        self._update_wants()

    def subscribe(self, write: Callable[[bytes], object]) -> Subscriber:
        """A new subscriber, which gets every event but near misses from now on."""
        subscriber = Subscriber(write)
        self._subscribers.add(subscriber)
        return subscriber

    def unsubscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.discard(subscriber)
        if subscriber.subscription.scores or subscriber.subscription.near_misses:
            self._update_wants()

    def _drop(self, subscriber: Subscriber) -> None:
        """Log the exception of a subscriber: a defect of one output must not cost the others their events."""
        log.exception("an output failed, and gets no more events")
        self.unsubscribe(subscriber)

    def _after(self, since: Since) -> tuple[list[tuple[Published, bytes]], Gap | None]:
        """The kept events after `since`, and the gap before them if there is one."""
        oldest = time.monotonic() - HISTORY_SECONDS
        kept = [(event, line) for at, event, line in self._history if at >= oldest]
        if since.boot_id != self.numbering.boot_id:
            return kept, Gap(reason="the daemon was restarted", n_lost=None)
        after = [(event, line) for event, line in kept if event.seq > since.seq]
        n_lost = self.numbering.next_seq - 1 - since.seq - len(after)
        return after, Gap(reason="older than the kept history", n_lost=n_lost) if n_lost > 0 else None

    def _update_wants(self) -> None:
        wanted = [subscriber.subscription for subscriber in self._subscribers]
        self.wants_scores = any(one.scores for one in wanted)
        self.wants_near_misses = any(one.near_misses for one in wanted)


def encode(event: Event) -> bytes:
    """An event as it is sent: one line of UTF-8."""
    return event.to_json().encode() + b"\n"
