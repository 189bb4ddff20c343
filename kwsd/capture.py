"""Capture: drives a source in a thread of its own and keeps it alive; all of them fill one inbox.

The law of this file: the reading thread never waits for inference when its source is live;
then what waits is dropped, and the positions of the chunks tell how much. A source
that breaks is opened again, with back-off, for ever; one that delivers nothing but zeros is
broken, and is up again with its first sound. Each state is told once:

    closed ─▶ open, silent ─▶ up ─▶ down ─▶ (back-off) ─▶ closed
                  └──────────────────▲ still nothing but zeros
"""

import threading
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from kwsd.audio import Chunk
from kwsd.errors import KwsdError, SourceError
from kwsd.sources import Opened, Source

QUEUE_SECONDS = 2.0
"""Of a stream: inference that is later than that would report stale keywords."""

TAKE_SECONDS = 0.1
"""Of a stream at once: hearing what was taken ends soon, so what waits can still be dropped."""

GATHER_SECONDS = 0.025
"""How long the first chunk of several streams waits for those of the others: a run of many costs
each of them a fraction of a run of its own."""

_SILENT = "delivers nothing but zeros; is it muted?"
_RETRY_SECONDS = (0.5, 1, 2, 5, 10)
_STEADY_SECONDS = 10.0  # of audio, after which a source that breaks is tried again soon
_MOST_PATIENCE = 16  # times as long a source that stays silent is listened to before it is opened again


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
    """A source and its thread.

    Args:
        streams: whose audio it is: one, or one for each column of the source's chunks.
        inbox: gets it.
        silent_seconds: for how long a live source may deliver nothing but zeros.

    Attributes:
        opening_since: when it began to open the source, on the monotonic clock; None at other times.
    """

    def __init__(self, source: Source, streams: list[str], inbox: "Inbox", silent_seconds: float = 30.0) -> None:
        self._source, self._streams, self._inbox = source, streams, inbox
        self._silent_seconds = silent_seconds
        self._stopping = threading.Event()
        self._n_failures = self._n_silent = 0
        self._told = ""  # why it is down
        self._began = 0.0  # when the stream's clock was at 0, on the monotonic clock
        self.opening_since: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The source's."""
        return self._source.name

    def start(self) -> None:
        """Open the source and begin to read it.

        Raises:
            SourceError, AudioError: it cannot be opened. Only a source that was there once
                is tried again: a wrong name should be said at once.
        """
        opened = self._source.open()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End soon, once the inbox is closed."""
        self._stopping.set()

    def join(self, deadline: float) -> None:
        """Wait until a device is let go, but not past `deadline` (monotonic); a read from a pipe cannot be ended."""
        if self._thread and self._source.is_live:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _put(self, item: Down | End) -> None:
        for stream in self._streams:
            self._put_of(stream, item)

    def _put_of(self, stream: str, item: Item) -> None:
        self._inbox.put(stream, item, waits=not self._source.is_live)

    def _run(self, opened: Opened | None) -> None:
        """The thread. Whatever ends it is said, so that nobody waits for a dead source."""
        self._began = time.monotonic()
        start_seconds = 0.0
        while not self._stopping.is_set():
            try:
                if opened is None:
                    self.opening_since = time.monotonic()
                    try:
                        opened = self._source.open()
                    finally:
                        self.opening_since = None
                    start_seconds = time.monotonic() - self._began
                self._deliver(opened, start_seconds)
                return
            except Exception as error:
                if not (self._source.is_live and isinstance(error, KwsdError)):
                    self._put(End(error))
                    return
                self._back_off(error)
                opened = None

    def _deliver(self, opened: Opened, start_seconds: float) -> None:
        """Put the chunks, counted from the first that is told of: after silence the first with sound.

        The clock of a device that runs faster than this machine's is not set back when it comes again.
        """
        first: int | None = None
        columns = [_Column(stream) for stream in self._streams]
        with closing(opened.chunks) as chunks:
            for chunk in chunks:
                if self._stopping.is_set():
                    return
                parts = [replace(chunk, samples=np.ascontiguousarray(own)) for own in np.atleast_2d(chunk.samples.T)]
                for column, part in zip(columns, parts, strict=True):
                    column.n_zeros = 0 if part.samples.any() else column.n_zeros + len(part.samples)
                n_zeros = min(column.n_zeros for column in columns)
                patience = self._silent_seconds * min(2**self._n_silent, _MOST_PATIENCE)
                if self._source.is_live and n_zeros >= patience * opened.rate_hz:
                    self._n_silent += 1
                    raise SourceError(f"{self._source.name}: {_SILENT}")
                if n_zeros and self._n_silent:
                    continue
                if first is None:
                    first = chunk.position
                    self._n_silent, self._told = 0, ""
                elif chunk.position - first > _STEADY_SECONDS * opened.rate_hz:
                    self._n_failures = 0
                for column, part in zip(columns, parts, strict=True):
                    self._deliver_to(column, part, opened.rate_hz, start_seconds)
                self._began = min(self._began, time.monotonic() - start_seconds - chunk.end / opened.rate_hz)
        self._put(End())

    def _deliver_to(self, column: "_Column", chunk: Chunk, rate_hz: int, start_seconds: float) -> None:
        """Put a stream's own chunk; a channel that is silent while others are not is down until its first sound."""
        if self._source.is_live and column.n_zeros >= self._silent_seconds * rate_hz:
            if column.first is not None:
                column.first = None
                self._put_of(column.stream, Down(f"{self._source.name}: this channel {_SILENT}", 0.0))
            return
        if column.first is None:
            column.first = chunk.position
            self._put_of(column.stream, Up(rate_hz, start_seconds + chunk.position / rate_hz))
        self._put_of(column.stream, replace(chunk, position=chunk.position - column.first))

    def _back_off(self, error: KwsdError) -> None:
        """Wait before the next try. The same reason again and again is told once."""
        retry_seconds = _RETRY_SECONDS[min(self._n_failures, len(_RETRY_SECONDS) - 1)]
        self._n_failures += 1
        if str(error) != self._told:
            self._told = str(error)
            self._put(Down(self._told, retry_seconds))
        self._stopping.wait(retry_seconds)


@dataclass(slots=True)
class _Column:
    """What a stream hears of an opened source.

    Attributes:
        first: the position that its chunks count from while it is up.
        n_zeros: samples since its last sound.
    """

    stream: str
    first: int | None = None
    n_zeros: int = 0


class _Queue:
    """What waits of one stream, each item with the moment when it came, on the monotonic clock."""

    def __init__(self, max_samples: float) -> None:
        self.items: deque[tuple[float, Item]] = deque()
        self.n_samples, self.max_samples = 0, max_samples

    @property
    def is_full(self) -> bool:
        return self.n_samples >= self.max_samples

    def append(self, item: Item, at: float) -> None:
        self.items.append((at, item))
        self.n_samples += _n_samples(item)

    def take(self, n_samples: float) -> list[Item]:
        """Everything up to so much audio, but no less than the first item."""
        taken: list[Item] = []
        while self.items and (not taken or _n_samples(self.items[0][1]) <= n_samples):
            taken.append(self.items.popleft()[1])
            n_samples -= _n_samples(taken[-1])
            self.n_samples -= _n_samples(taken[-1])
        return taken

    def drop_audio(self) -> None:
        """Only audio is dropped, never the news about the source.

        All that waits, in one piece: of words with many small holes in them none would be heard.
        """
        self.items = deque(one for one in self.items if not isinstance(one[1], Chunk))
        self.n_samples = 0


def _n_samples(item: Item) -> int:
    return len(item.samples) if isinstance(item, Chunk) else 0


class Inbox:
    """Between the captures and the one thread that hears: a queue for each stream, bounded in seconds.

    Args:
        max_seconds: how much of a stream may wait.

    Attributes:
        taken_since: when the oldest came of what was taken last, on the monotonic clock.
    """

    def __init__(self, max_seconds: float = QUEUE_SECONDS) -> None:
        self._queues: dict[str, _Queue] = {}  # of the streams that something waits of
        self._rates_hz: dict[str, int] = {}  # of the streams that are up
        self._max_seconds = max_seconds
        self._gathering, self._closed = False, False
        self._since = self.taken_since = 0.0
        self._changed = threading.Condition()

    def put(self, stream: str, item: Item, waits: bool) -> None:
        """Add what happens next in a stream. When its queue is full, wait, or drop the audio in it."""
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
            if stream not in self._queues:
                self._queues[stream] = _Queue(self._max_seconds * self._rates_hz.get(stream, 1))
            self._queues[stream].append(item, now)
            if isinstance(item, Down | End):
                self._rates_hz.pop(stream, None)
            if not self._gathering or self._is_gathered():
                self._changed.notify_all()

    def take(self) -> list[tuple[str, Item]]:
        """Some of what waits, each stream's in its order, as soon as there is something; nothing once closed.

        Where several streams are up, those that are late get a moment to come along.
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
            taken = {stream: queue.take(share * queue.max_samples) for stream, queue in self._queues.items()}
            self._queues = {stream: queue for stream, queue in self._queues.items() if queue.items}
            self.taken_since, self._since = oldest, time.monotonic()
            self._changed.notify_all()
            return [(stream, item) for stream, items in taken.items() for item in items]

    def waiting_seconds(self) -> float:
        """For how long something waits that nobody takes."""
        with self._changed:
            return time.monotonic() - self._since if self._queues else 0.0

    def is_full(self, stream: str) -> bool:
        """Whether `put` would wait, or drop."""
        with self._changed:
            return self._is_full(stream)

    def close(self) -> None:
        """Nobody takes any more, so nobody waits to put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_full(self, stream: str) -> bool:
        return stream in self._queues and self._queues[stream].is_full

    def _is_gathered(self) -> bool:
        return self._closed or len(self._queues) >= len(self._rates_hz)
