"""The inbox: between the threads that read audio and the one thread that processes it.

Law: every queue is bounded in seconds of audio. When a queue is full, the reader waits or the audio
in it is dropped; the positions of the next chunks then show how much was lost.
"""

import threading
import time
from collections import deque
from itertools import islice, zip_longest

from kwsd.audio import Chunk
from kwsd.sources.base import Down, End, Item, Up

QUEUE_SECONDS = 2.0
"""Audio that may wait in one stream. Keywords that are later than that would be stale."""

TAKE_SECONDS = 0.1
"""Audio taken from one stream at once. Short, so that the audio that still waits can be dropped soon."""

_STREAMS_AT_ONCE, _ENDS_AT_ONCE, _ITEMS_AT_ONCE = 512, 8, 16
"""Limits of one take: streams, those of them that may end, and items of one stream. So a take is soon processed,
however much waits. An end costs most: half a second of silence follows it, so that the last word is decided."""

GATHER_SECONDS = 0.025
"""How long the first chunk waits for the chunks of other streams: a shared run of many streams costs
a fraction of a run for each."""


class Inbox:
    """A bounded queue for each stream.

    Args:
        max_seconds: audio that may wait in one stream.

    Attributes:
        taken_since: arrival of the oldest item that was taken last, on the monotonic clock.
    """

    def __init__(self, max_seconds: float = QUEUE_SECONDS) -> None:
        self._queues: dict[str, _Queue] = {}  # only streams in which something waits
        self._rates_hz: dict[str, int] = {}  # only streams that are up
        self._max_seconds = max_seconds
        self._gathering, self._closed = False, False
        self._since = self.taken_since = 0.0
        self._changed = threading.Condition()

    def put(self, stream: str, item: Item, waits: bool) -> None:
        """Add the next item of a stream. When its queue is full, wait, or drop the audio in it."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: not self._is_full(stream) or self._closed)
            elif self._is_full(stream) and isinstance(item, Chunk):
                self._queues[stream].drop_audio()
            now = time.monotonic()
            if not self._queues:
                self._since = now
            if isinstance(item, Up):
                self._rates_hz[stream] = item.rate_hz
            max_samples = self._max_seconds * self._rates_hz.get(stream, 1)
            self._queues.setdefault(stream, _Queue(max_samples)).max_samples = max_samples
            self._queues[stream].append(item, now)
            if isinstance(item, Down | End):
                self._rates_hz.pop(stream, None)
            if not self._gathering or self._is_gathered():
                self._changed.notify_all()

    def take(self) -> list[tuple[str, Item]]:
        """Wait for items and return some of every stream's; an empty list once closed.

        The first item of every stream comes first, then the second item of every stream, and so on:
        streams that end together can then share runs. Where several streams are up, the others get `GATHER_SECONDS`
        to deliver theirs.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queues or self._closed)
            self._gathering = True
            oldest = min((queue.items[0][0] for queue in self._queues.values()), default=0.0)
            self._changed.wait_for(self._is_gathered, max(0.0, oldest + GATHER_SECONDS - time.monotonic()))
            self._gathering = False
            if self._closed:
                return []
            share = TAKE_SECONDS / self._max_seconds
            taken: dict[str, list[Item]] = {}
            since = time.monotonic()
            n_ends = 0
            for stream in list(islice(self._queues, _STREAMS_AT_ONCE)):
                queue = self._queues.pop(stream)
                since = min(since, queue.items[0][0])
                taken[stream] = queue.take(share * queue.max_samples, may_end=n_ends < _ENDS_AT_ONCE)
                n_ends += any(isinstance(item, End) for item in taken[stream])
                if queue.items:
                    self._queues[stream] = queue  # behind the streams whose turn was not yet
            self.taken_since, self._since = since, time.monotonic()
            self._changed.notify_all()
            most = max(map(len, taken.values()))
            return [(stream, items[n]) for n in range(most) for stream, items in taken.items() if n < len(items)]

    def waiting_seconds(self) -> float:
        """How long items have waited since the last `take`; 0 if there are none."""
        with self._changed:
            return time.monotonic() - self._since if self._queues else 0.0

    def is_full(self, stream: str) -> bool:
        """Whether `put` would wait, or drop audio."""
        with self._changed:
            return self._is_full(stream)

    def close(self) -> None:
        """Release every thread that waits in `put` or `take`."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full(self, stream: str) -> bool:
        return stream in self._queues and self._queues[stream].is_full

    def _is_gathered(self) -> bool:
        return self._closed or len(self._queues) >= len(self._rates_hz)


class _Queue:
    """The items of one stream, each with its time of arrival on the monotonic clock."""

    def __init__(self, max_samples: float) -> None:
        self.items: deque[tuple[float, Item]] = deque()
        self.n_samples, self.max_samples = 0, max_samples

    @property
    def is_full(self) -> bool:
        return self.n_samples >= self.max_samples

    def append(self, item: Item, at: float) -> None:
        self.items.append((at, item))
        self.n_samples += _n_samples(item)

    def take(self, n_samples: float, may_end: bool) -> list[Item]:
        """Remove and return up to `n_samples` of audio, at least one item. Stop before an End unless `may_end`."""
        taken: list[Item] = []
        while self.items and len(taken) < _ITEMS_AT_ONCE:
            item = self.items[0][1]
            if (taken and _n_samples(item) > n_samples) or (isinstance(item, End) and not may_end):
                break
            taken.append(item)
            self.items.popleft()
            n_samples -= _n_samples(item)
            self.n_samples -= _n_samples(item)
        return taken

    def drop_audio(self) -> None:
        """Drop all waiting audio, but keep what happened to the source, and what was lost before it.

        One long hole costs the words in it. Many small holes would cost every word.
        """
        kept: deque[tuple[float, Item]] = deque()
        following = [item for _, item in self.items][1:]
        for (at, item), next_item in zip_longest(self.items, following):
            if not isinstance(item, Chunk):
                kept.append((at, item))
            elif isinstance(next_item, Down | End | Up):  # no later chunk will show the hole
                kept.append((at, Chunk(item.samples[:0], item.end)))
        self.items, self.n_samples = kept, 0


def _n_samples(item: Item) -> int:
    return len(item.samples) if isinstance(item, Chunk) else 0
