"""Capture: reads a source in a thread of its own, keeps it alive, and fills the inbox.

Law: the reading thread of a live source never waits for inference. A live source that breaks is
opened again, with back-off, without end; a recording or a pipe ends. A live source that delivers
only zeros counts as broken, and is up again with its first sound. Each change is reported once:

    closed ─▶ open, silent ─▶ up ─▶ down ─▶ (back-off) ─▶ closed
                  └──────────────────▲ still nothing but zeros
"""

import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from kwsd.audio import Chunk
from kwsd.config import Config, StreamConfig
from kwsd.errors import KwsdError, SourceError
from kwsd.service.inbox import Inbox
from kwsd.sources.base import Down, End, Item, Opened, Source, Up, is_shared, make_source

_SILENT = "delivers nothing but zeros; is it muted?"
_RETRY_SECONDS = (0.5, 1, 2, 5, 10)
_STEADY_SECONDS = 10.0  # after this much audio, the next failure is again retried soon
_MOST_PATIENCE = 16  # a source that stays silent is given up to 16 times `silent_seconds` before it is reopened


def make_captures(config: Config, inbox: Inbox) -> dict[str, "Capture"]:
    """The capture of each configured stream that does not come over the network; streams of one device share one."""
    by_source: dict[str, dict[str, StreamConfig]] = {}
    for name, stream in config.streams.items():
        if stream.source != "network":
            by_source.setdefault(stream.source if is_shared(stream) else name, {})[name] = stream
    captures: dict[str, Capture] = {}
    for streams in by_source.values():
        capture = Capture(make_source(*streams.values()), list(streams), inbox, config.silent_seconds)
        captures |= dict.fromkeys(streams, capture)
    return captures


class Capture:
    """A source and its thread.

    Args:
        streams: the name of the stream, or of one stream for each column of the source's chunks.
        inbox: receives the audio.
        silent_seconds: how long a watched source may deliver nothing but zeros.

    Attributes:
        opening_since: when it began to reopen the source, on the monotonic clock; None at other times.
    """

    def __init__(self, source: Source, streams: list[str], inbox: Inbox, silent_seconds: float = 30.0) -> None:
        self._source, self._streams, self._inbox = source, streams, inbox
        self._silent_seconds = silent_seconds
        self._stopping = threading.Event()
        self._n_failures = self._n_silent = 0
        self._reported = ""  # why the source is down
        self._silent: set[str] = set()  # streams that are down until their first sound, also after a reopening
        self._began = 0.0  # when the stream's clock was at 0, on the monotonic clock
        self.opening_since: float | None = None
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """The source's name."""
        return self._source.name

    @property
    def is_live(self) -> bool:
        """Whether the source goes on without kwsd, as a device does."""
        return self._source.is_live

    def start(self) -> None:
        """Open the source and begin to read it.

        Raises:
            SourceError, AudioError: it cannot be opened. The first attempt is not repeated, so that
                a wrong name is reported at once.
        """
        opened = self._source.open()
        self._thread = threading.Thread(target=self._run, args=(opened,), name="capture", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; the inbox must be closed, so that the thread does not wait for it."""
        self._stopping.set()

    def join(self, deadline: float) -> None:
        """Wait until a device is freed, at most until `deadline` (monotonic). A read from a pipe cannot be ended."""
        if self._thread and self._source.is_live:
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _put(self, stream: str, item: Item) -> None:
        self._inbox.put(stream, item, waits=not self._source.is_live)

    def _put_all(self, item: Down | End) -> None:
        for stream in self._streams:
            if isinstance(item, End) or stream not in self._silent:  # that one is down already, and stays so
                self._put(stream, item)

    def _run(self, opened: Opened | None) -> None:
        """The thread. Whatever ends it is put into the inbox, so the daemon never waits for a dead source."""
        self._began = time.monotonic()
        start_seconds = 0.0
        while not self._stopping.is_set():
            try:
                if opened is None:
                    opened = self._reopen()
                    start_seconds = time.monotonic() - self._began
                self._deliver(opened, start_seconds)
                return
            except Exception as error:
                if not (self._source.is_live and isinstance(error, KwsdError)):
                    self._put_all(End(error))
                    return
                self._back_off(error)
                opened = None

    def _reopen(self) -> Opened:
        self.opening_since = time.monotonic()
        try:
            return self._source.open()
        finally:
            self.opening_since = None

    def _deliver(self, opened: Opened, start_seconds: float) -> None:
        """Deliver chunks until the source ends. While all is silent after a silent failure, deliver nothing."""
        rate_hz, first_position = opened.rate_hz, None
        columns = [_Column(stream) for stream in self._streams]
        with closing(opened.chunks) as chunks:
            for chunk in chunks:
                if self._stopping.is_set():
                    return
                parts = [replace(chunk, samples=np.ascontiguousarray(own)) for own in np.atleast_2d(chunk.samples.T)]
                for column, part in zip(columns, parts, strict=True):
                    column.count_zeros(part, rate_hz)
                n_zeros = min(column.n_zeros for column in columns)
                self._refuse_long_silence(n_zeros, rate_hz)
                if n_zeros and self._n_silent:  # down for silence, and still silent
                    continue
                if first_position is None:
                    first_position = chunk.position
                    self._n_silent, self._reported = 0, ""
                elif chunk.position - first_position > _STEADY_SECONDS * rate_hz:
                    self._n_failures = 0
                for column, part in zip(columns, parts, strict=True):
                    self._deliver_to(column, part, rate_hz, start_seconds)
                # A device may run faster than this machine's clock. When it is reopened, stream time must not go back.
                self._began = min(self._began, time.monotonic() - start_seconds - chunk.end / rate_hz)
        self._put_all(End())

    def _refuse_long_silence(self, n_zeros: int, rate_hz: int) -> None:
        """Give up a live source that is silent, with more patience each time.

        Raises:
            SourceError: it has been silent for too long.
        """
        patience = self._silent_seconds * min(2**self._n_silent, _MOST_PATIENCE)
        if self._source.is_live and n_zeros >= patience * rate_hz:
            self._n_silent += 1
            raise SourceError(f"{self._source.name}: {_SILENT}")

    def _deliver_to(self, column: "_Column", chunk: Chunk, rate_hz: int, start_seconds: float) -> None:
        """Deliver one stream's chunk. A silent channel beside others that deliver is down until its first sound."""
        if self._source.is_watched and column.n_zeros >= self._silent_seconds * rate_hz:
            if column.up_from is not None:
                column.up_from = None
                self._silent.add(column.stream)
                which = "this channel " if len(self._streams) > 1 else ""
                self._put(column.stream, Down(f"{self._source.name}: {which}{_SILENT}", 0.0))
            return
        if not len(chunk.samples) or (column.n_zeros and column.stream in self._silent):
            return
        self._silent.discard(column.stream)
        if column.up_from is None:
            column.up_from = chunk.position
            self._put(column.stream, Up(rate_hz, start_seconds + chunk.position / rate_hz))
        self._put(column.stream, replace(chunk, position=chunk.position - column.up_from))

    def _back_off(self, error: KwsdError) -> None:
        """Wait before the next attempt. The same reason is reported only once."""
        retry_seconds = _RETRY_SECONDS[min(self._n_failures, len(_RETRY_SECONDS) - 1)]
        self._n_failures += 1
        if str(error) != self._reported:
            self._reported = str(error)
            self._put_all(Down(self._reported, retry_seconds))
        self._stopping.wait(retry_seconds)


@dataclass(slots=True)
class _Column:
    """One stream of an opened source.

    Attributes:
        up_from: the position that its chunks count from while it is up.
        n_zeros: samples since its last sound.
    """

    stream: str
    up_from: int | None = None
    n_zeros: int = 0

    def count_zeros(self, chunk: Chunk, rate_hz: int) -> None:
        """Count a chunk. An empty one stands for a second without audio."""
        self.n_zeros = 0 if chunk.samples.any() else self.n_zeros + (len(chunk.samples) or rate_hz)
