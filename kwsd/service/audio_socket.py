"""The audio socket: raw PCM from other programs, many streams at once.

    (echo '{"stream":"hall","rate_hz":16000}'; arecord -t raw -f S16_LE -r 16000) | nc -U audio.sock

Law: a connection is a stream. It begins with one line of JSON that describes the audio, and ends
when the sender closes it. One thread reads all connections: a thread for each of hundreds, or an
event loop that wakes up for every piece, would cost more than processing the audio.
"""

import logging
import selectors
import socket
import threading
import time
from contextlib import suppress

from kwsd.audio import Chunk, PcmDecoder
from kwsd.config import Config
from kwsd.errors import SourceError
from kwsd.limits import Rate
from kwsd.protocol.address import unix_path
from kwsd.protocol.events import Error
from kwsd.service.endpoints import bind_tcp, bind_unix, raise_descriptor_limit, remove_socket
from kwsd.service.inbox import TAKE_SECONDS, Inbox
from kwsd.sources.base import End, Up
from kwsd.sources.header import Header

log = logging.getLogger("kwsd")

_HEADER_BYTES = 4096
_HEADER_SECONDS = 5.0
_READ_BYTES = 2**16
_PAUSE_SECONDS = 0.01  # between two rounds of reading
_IDLE_SECONDS = 0.2  # longest time until late headers and the end of the daemon are noticed
_JOIN_SECONDS = 0.5
_LOOK_SECONDS = 0.5  # between two looks at senders that are silent
_WARNING_SECONDS = 10.0  # between two log lines about refused streams
_NEW_PER_SECOND, _NEW_AT_ONCE = 20, 512  # streams: a house, even one that has just been restarted, has fewer
_ACCEPTED_AT_ONCE = 16  # connections in a round: more would take the processor from those that deliver
_MOST_CLOCKS = 10_000  # names whose clocks are kept: a sender may use each name only once


class _BusyError(ValueError):
    """A sender's name is in use, which may pass."""


class AudioSocket:
    """The audio socket and its thread.

    Args:
        config: for the address, who may connect, and which channel of a stream to take.
        inbox: receives the streams.
        taken: names of streams that other sources deliver.
    """

    def __init__(self, config: Config, inbox: Inbox, taken: set[str]) -> None:
        assert config.audio
        self._config, self._address, self._path = config, config.audio, unix_path(config.audio)
        self.inbox = inbox
        self._busy = set(taken)  # names of streams that deliver now, here or elsewhere
        self._began: dict[str, float] = {}  # when each name first delivered: its clock's zero
        self._senders: set[_Sender] = set()
        self.silent_seconds = config.silent_seconds
        self._is_full = False
        self._new = Rate(_NEW_PER_SECOND, _NEW_AT_ONCE)
        self._refusals = Rate(1 / _WARNING_SECONDS, 1)
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audio socket", daemon=True)
        self._listener: socket.socket | None = None
        self._inode = 0
        self._most_senders = raise_descriptor_limit()

    def start(self) -> None:
        """Listen, and start the thread.

        Raises:
            SocketError: the address cannot be used.
        """
        self._listener = bind_unix(self._path, self._config) if self._path else bind_tcp(self._address)
        self._inode = self._path.stat().st_ino if self._path else 0
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Close the address and every connection."""
        self._stopping.set()
        if not self._listener:
            return
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        self._listener.close()
        if self._path:
            remove_socket(self._path, self._inode)

    def channel(self, stream: str) -> int | None:
        """The channel to take of a stream, counted from 1; None for the mean."""
        return self._config.of_stream(stream).channel

    def claim(self, stream: str) -> float:
        """Reserve a stream's name. Returns the monotonic time at which that stream's clock was 0.

        Raises:
            ValueError: the name is in use.
        """
        for ended in [sender for sender in self._senders if sender.is_done and sender.stream == stream]:
            self._remove(ended)
        if stream in self._busy:
            raise _BusyError(f"stream: {stream!r:.40} is already connected")
        self._busy.add(stream)
        if stream not in self._began and len(self._began) >= _MOST_CLOCKS:
            del self._began[next(iter(self._began))]
        return self._began.setdefault(stream, time.monotonic())

    def _run(self) -> None:
        """The thread. Whatever ends it is put into the inbox, so the daemon never waits for a dead source."""
        assert self._listener
        try:
            self._serve(self._listener)
        except Exception as error:  # as the end of a stream named after the address, which ends the daemon
            self.inbox.put(self._address, End(error), waits=False)

    def _serve(self, listener: socket.socket) -> None:
        """Read in rounds. The pause between them collects more data, so that each wake-up is worth its cost."""
        look_at = 0.0
        while not self._stopping.is_set():
            is_waiting = any(sender.is_paused for sender in self._senders)
            ready = [key.data for key, _ in self._selector.select(_PAUSE_SECONDS if is_waiting else _IDLE_SECONDS)]
            for sender in sorted(filter(None, ready), key=lambda sender: not sender.stream):
                sender.read()  # those with a name first: one that ends frees its name
            if None in ready:
                self._accept(listener)
            now = time.monotonic()
            is_time = now >= look_at
            look_at = now + _LOOK_SECONDS if is_time else look_at
            for sender in [one for one in self._senders if is_time or one.is_paused or one.deadline]:
                sender.check(now)
            for sender in [one for one in self._senders if one.is_done]:
                self._remove(sender)
            self._stopping.wait(_PAUSE_SECONDS)
        for sender in list(self._senders):
            self._remove(sender)

    def _accept(self, listener: socket.socket) -> None:
        """Accept waiting connections."""
        for _ in range(_ACCEPTED_AT_ONCE):
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptors left
                if not self._is_full:
                    log.warning("audio socket: cannot accept connections (%s)", error.strerror)
                self._is_full = True
                return
            self._is_full = False
            if len(self._senders) >= self._most_senders:
                self._refuse(connection, f"{self._most_senders} streams are connected, which is the limit")
            elif not self._new.allows(time.monotonic()):
                self._refuse(connection, f"more than {_NEW_PER_SECOND} new streams a second; try again later")
            else:
                sender = _Sender(self, connection)
                self._senders.add(sender)
                self._selector.register(connection, selectors.EVENT_READ, sender)

    def _refuse(self, connection: socket.socket, reason: str) -> None:
        """Refuse a connection. The log has a line for the first of many."""
        if self._refusals.allows(time.monotonic()):
            log.warning("audio socket: refuses new streams: %s", reason)
        with connection:
            connection.setblocking(False)
            _send_error(connection, reason, retryable=True)

    def _remove(self, sender: "_Sender") -> None:
        self._senders.discard(sender)
        self._selector.unregister(sender.connection)
        sender.connection.close()
        if stream := sender.stream:
            self._busy.discard(stream)
            if stream in self._began:  # samples may come faster than real time; the clock must not go back
                self._began[stream] = min(self._began[stream], time.monotonic() - sender.end_seconds)
            self.inbox.put(stream, End(sender.error), waits=False)


class _Sender:
    """One connection: a header, then samples.

    Attributes:
        stream: its name, once the header has arrived.
        deadline: for the header, on the monotonic clock; 0 once it has arrived.
        is_paused: whether its audio waits in place of being dropped.
        is_done: whether it has ended, or was refused.
        error: why it was ended, if it did not end by itself.
    """

    def __init__(self, server: AudioSocket, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._server, self.connection = server, connection
        self.stream = ""
        self.deadline = time.monotonic() + _HEADER_SECONDS
        self.is_paused = self.is_done = False
        self.error: SourceError | None = None
        self._sounded_at = 0.0  # when its last sound arrived, on the monotonic clock
        self._line = b""  # of the header
        self._header = Header(stream="-")  # replaced by the sender's own
        self._decoder = PcmDecoder(self._header)
        self._start_seconds = 0.0
        self._position = 0

    @property
    def end_seconds(self) -> float:
        """Stream time of the end of what was delivered."""
        return self._start_seconds + self._position / self._header.rate_hz

    def read(self) -> None:
        """Read what has arrived."""
        if self.is_paused or self.is_done:
            return
        try:
            data = self.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.is_done = True
        elif self.stream:
            self._decoder.push(data)
            self._deliver()
        else:
            self._read_header(data)

    def check(self, now: float) -> None:
        """Check the deadline and deliver waiting audio, even if no data has arrived."""
        if self.deadline and now > self.deadline:
            self.refuse(f"no header within {_HEADER_SECONDS:g} s", retryable=True)
        elif self.is_paused:
            self._deliver()
        elif self.stream and self._header.live and now - self._sounded_at > self._server.silent_seconds:
            reason = f"no sound for {self._server.silent_seconds:g} s"
            self.error = SourceError(reason)
            self.refuse(f"{reason}; connect again when there is some", retryable=True)

    def refuse(self, reason: str, retryable: bool = False) -> None:
        _send_error(self.connection, reason, retryable)
        self.is_done = True

    def _read_header(self, data: bytes) -> None:
        line, newline, rest = (self._line + data).partition(b"\n")
        if not newline and len(line) < _HEADER_BYTES:
            self._line = line
            return
        try:
            self._begin(Header.parse(line[:_HEADER_BYTES]))
        except ValueError as error:
            self.refuse(str(error), retryable=isinstance(error, _BusyError))
            return
        self._decoder.push(rest)
        self._deliver()

    def _begin(self, header: Header) -> None:
        channel = self._server.channel(header.stream)
        if channel is not None and channel > header.channels:
            raise ValueError(f"channels: {header.channels}, but channel {channel} is configured for this stream")
        began = self._server.claim(header.stream)
        self._start_seconds = time.monotonic() - began
        self._header, self.stream, self.deadline = header, header.stream, 0.0
        self._sounded_at = time.monotonic()
        self._decoder = PcmDecoder(header, channel)
        self._server.inbox.put(self.stream, Up(header.rate_hz, self._start_seconds), waits=False)

    def _deliver(self) -> None:
        """Put what has arrived into the inbox, in pieces, so that the bound of the inbox holds."""
        inbox, piece = self._server.inbox, max(1, round(TAKE_SECONDS * self._header.rate_hz))
        while self._decoder.n_samples:
            self.is_paused = not self._header.live and inbox.is_full(self.stream)
            if self.is_paused:
                return
            samples = self._decoder.take(piece)
            if samples.any():
                self._sounded_at = time.monotonic()
            inbox.put(self.stream, Chunk(samples, self._position), waits=False)
            self._position += len(samples)


def _send_error(connection: socket.socket, reason: str, retryable: bool) -> None:
    with suppress(OSError):
        connection.send(Error(reason=reason, retryable=retryable).to_json().encode() + b"\n")
