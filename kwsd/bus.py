"""The bus: numbers events and hands each to every subscriber, none of whom can hold it up.

The law of this file: it lives on one event loop. Publishing never waits; a subscriber that
does not keep up loses its own oldest events, and is told how many.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar
from uuid import uuid4

from kwsd.events import Event, Gap, Lagged, Published, Scores, Subscribed
from kwsd.requests import Request, Since

_PublishedEvent = TypeVar("_PublishedEvent", bound=Published)

QUEUE_EVENTS = 4000
"""Events that wait for one subscriber: minutes of the liveliest house. All share the lines."""

_LINES_AT_ONCE = 64
"""Of what has waited: the rest is shared until the subscriber has taken these."""

HISTORY_EVENTS = QUEUE_EVENTS // 2
HISTORY_SECONDS = 3600.0
"""What a subscriber that was away can be told: so many events, none older."""


class Numbering:
    """Gives published events their number, the run's name and the time."""

    def __init__(self) -> None:
        self.boot_id = uuid4().hex
        self.next_seq = 0

    def stamp(self, event: _PublishedEvent) -> _PublishedEvent:
        """The same event, with its three fields filled in."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        stamped = replace(event, seq=self.next_seq, boot_id=self.boot_id, time=now)
        self.next_seq += 1
        return stamped


class Subscription:
    """One subscriber: a way to write to it, and a bounded queue for when it does not read.

    Args:
        write: takes encoded lines; while it must not be called, the subscription is held.

    Attributes:
        request: what the subscriber wants.
    """

    def __init__(self, write: Callable[[bytes], object], max_events: int = QUEUE_EVENTS) -> None:
        self._write, self._max_events = write, max_events
        self._lines: deque[bytes] = deque()
        self._n_lost = 0
        self._is_held = False
        self._known_seq, self._known_at = 0, time.monotonic()
        self.request = Request()

    def put(self, line: bytes) -> bool:
        """Write a line, or queue it; whether the oldest had to go, since the queue was full."""
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
        """Write a line, or forget it: what is true now does not wait, nor cost events."""
        if not self._is_held:
            self._write(line)

    def restart(self, request: Request, lines: list[bytes]) -> None:
        """What waits is not wanted any more, but this is, and what `request` says from now on."""
        self.request = request
        self._n_lost = 0
        self._lines = deque(lines)
        if not self._is_held:
            self.release()

    def hold(self) -> None:
        """The subscriber does not read: what comes is queued."""
        self._is_held = True

    def release(self) -> None:
        """It reads again: write what waits, and how much is lost, as long as it is not held again."""
        self._is_held = False
        if self._n_lost:
            self._lines.appendleft(encode(Lagged(n_lost=self._n_lost)))
            self._n_lost = 0
        while self._lines and not self._is_held:
            self._write(b"".join(self._lines.popleft() for _ in range(min(_LINES_AT_ONCE, len(self._lines)))))

    def finish(self) -> None:
        """Write all that waits: nothing comes after it."""
        while self._lines or self._n_lost:
            self.release()

    def skip(self, next_seq: int, now: float) -> None:
        """An event was not for it. Now and then it is told how far the numbers are: what is forgotten is no gap then.

        Args:
            next_seq: what the event after that will have.
            now: on the monotonic clock.
        """
        if next_seq - self._known_seq >= HISTORY_EVENTS // 8 or now - self._known_at >= HISTORY_SECONDS / 8:
            self._known_seq, self._known_at = next_seq, now
            self.put_now(encode(Subscribed(next_seq=next_seq)))


class Bus:
    """Fan-out to all subscriptions.

    Attributes:
        wants_scores: whether any subscriber asked for running scores.
        n_lagged: events that subscribers lost because they were too slow.
    """

    def __init__(self) -> None:
        self.numbering = Numbering()
        self.wants_scores = False
        self.n_lagged = 0
        self._subscriptions: set[Subscription] = set()
        self._history: deque[tuple[float, Published, bytes]] = deque(maxlen=HISTORY_EVENTS)

    def publish(self, event: Published) -> Published:
        """Number an event, encode it once and queue it for everybody who wants it; as it went out."""
        stamped = self.numbering.stamp(event)
        line, now = encode(stamped), time.monotonic()
        self._history.append((now, stamped, line))
        for subscription in self._subscriptions:
            if subscription.request.wants(stamped):
                self.n_lagged += subscription.put(line)
            else:
                subscription.skip(self.numbering.next_seq, now)
        return stamped

    def publish_scores(self, event: Scores) -> None:
        """For those who asked. Scores of labels that a subscriber does not want are left out."""
        lines: dict[frozenset[str] | None, bytes] = {}
        for subscription in self._subscriptions:
            request = subscription.request
            if not request.scores or not request.wants(event):
                continue
            if request.labels not in lines:
                wanted = {label: score for label, score in event.scores.items() if request.wants_label(label)}
                lines[request.labels] = encode(replace(event, scores=wanted))
            subscription.put_now(lines[request.labels])

    def resume(self, subscription: Subscription, request: Request) -> None:
        """From here on a subscriber gets what it asks for, and first what it missed."""
        missed: list[tuple[Published, bytes]] = []
        gap = None
        if request.since:
            missed, gap = self._since(request.since)
        lines = [encode(Subscribed(next_seq=self.numbering.next_seq - len(missed)))]
        if gap:
            lines.append(encode(gap))
        subscription.restart(request, lines + [line for event, line in missed if request.wants(event)])
        self._look_for_scores()

    def _since(self, since: Since) -> tuple[list[tuple[Published, bytes]], Gap | None]:
        """What happened after an event, as far as it is known, and what is not."""
        oldest = time.monotonic() - HISTORY_SECONDS
        kept = [(event, line) for at, event, line in self._history if at >= oldest]
        if since.boot_id != self.numbering.boot_id:
            return kept, Gap(reason="the daemon was started anew", n_lost=None)
        after = [(event, line) for event, line in kept if event.seq > since.seq]
        n_lost = self.numbering.next_seq - 1 - since.seq - len(after)
        return after, Gap(reason="longer ago than is kept", n_lost=n_lost) if n_lost > 0 else None

    def subscribe(self, write: Callable[[bytes], object]) -> Subscription:
        """What gets every event from now on."""
        subscription = Subscription(write)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)
        if subscription.request.scores:
            self._look_for_scores()

    def _look_for_scores(self) -> None:
        self.wants_scores = any(subscription.request.scores for subscription in self._subscriptions)


def encode(event: Event) -> bytes:
    """An event as it travels: one line of UTF-8."""
    return event.to_json().encode() + b"\n"
