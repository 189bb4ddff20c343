"""Capture: drives a source in a thread of its own and keeps it alive.

The law of this file: the reading thread never waits for inference when its source is live;
then the oldest audio is dropped, and the positions of the chunks tell how much. A source
that breaks is opened again, with back-off, for ever.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from kwsd.audio import Chunk
from kwsd.errors import KwsdError
from kwsd.sources import Opened, Source

QUEUE_CHUNKS = 20
"""About two seconds: inference that is later than that would report stale keywords."""

_RETRY_SECONDS = (0.5, 1, 2, 5, 10)
_JOIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Up:
    """The source delivers from here on; its first sample is `start_seconds` into the stream."""

    rate_hz: int
    start_seconds: float


@dataclass(frozen=True, slots=True)
class Down:
    """The source broke, and will be tried again."""

    reason: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class End:
    """The source ended, or (with an error) broke and cannot be opened again."""

    error: Exception | None = None


Item = Up | Chunk | Down | End


class Capture:
    """A source, its thread and its bounded queue."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._queue = ChunkQueue(QUEUE_CHUNKS, drops_oldest=source.is_live)
        self._stopping = threading.Event()
        self._n_failures = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Open the source and begin to read it.

        Raises:
            SourceError, AudioError: it cannot be opened. Only a source that was there once
                is tried again: a wrong name should be said at once.
        """
        opened = self._source.open()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="capture", daemon=True)
        self._thread.start()

    def items(self) -> Iterator[Item]:
        """What happens, in order, until an `End`, or until `stop`."""
        while (item := self._queue.get()) is not None:
            yield item
            if isinstance(item, End):
                return

    def stop(self) -> None:
        """End soon; what waits in the queue is not needed any more.

        A device is let go before the process ends; a read from a pipe cannot be ended.
        """
        self._stopping.set()
        self._queue.close()
        if self._thread and self._source.is_live:
            self._thread.join(_JOIN_SECONDS)

    def _run(self, opened: Opened | None) -> None:
        """The thread. Whatever ends it is said, so that nobody waits for a dead source."""
        started, start_seconds = time.monotonic(), 0.0
        while not self._stopping.is_set():
            try:
                if opened is None:
                    opened, start_seconds = self._source.open(), time.monotonic() - started
                self._deliver(opened, start_seconds)
                return
            except Exception as error:
                if not (self._source.is_live and isinstance(error, KwsdError)):
                    self._queue.put(End(error))
                    return
                self._back_off(error)
                opened = None

    def _deliver(self, opened: Opened, start_seconds: float) -> None:
        self._queue.put(Up(opened.rate_hz, start_seconds))
        with closing(opened.chunks) as chunks:
            for chunk in chunks:
                self._n_failures = 0
                self._queue.put(chunk)
                if self._stopping.is_set():
                    return
        self._queue.put(End())

    def _back_off(self, error: KwsdError) -> None:
        retry_seconds = _RETRY_SECONDS[min(self._n_failures, len(_RETRY_SECONDS) - 1)]
        self._n_failures += 1
        self._queue.put(Down(str(error), retry_seconds))
        self._stopping.wait(retry_seconds)


class ChunkQueue:
    """Between the capture thread and the inference thread: bounded in chunks.

    Args:
        max_chunks: how many may wait.
        drops_oldest: what happens when they do: the oldest chunk goes, or `put` waits.
    """

    def __init__(self, max_chunks: int, drops_oldest: bool) -> None:
        self._items: deque[Item] = deque()
        self._max_chunks, self._drops_oldest = max_chunks, drops_oldest
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> None:
        with self._changed:
            if self._drops_oldest:
                self._make_room()
            else:
                self._changed.wait_for(lambda: len(self._items) < self._max_chunks or self._closed)
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> Item | None:
        """The next item, as soon as there is one; None when the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            item = None if self._closed else self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _make_room(self) -> None:
        """Only audio is dropped, never the news about the source."""
        if len(self._items) >= self._max_chunks:
            oldest = next((i for i, item in enumerate(self._items) if isinstance(item, Chunk)), None)
            if oldest is not None:
                del self._items[oldest]
