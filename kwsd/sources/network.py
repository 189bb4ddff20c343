"""Raw PCM from other programs, many streams at once.

    (echo '{"stream":"hall","rate_hz":16000}'; arecord -t raw -f S16_LE -r 16000) | nc -U audio.sock

The law of this file: a connection is a stream. It begins with one line of JSON that says what
follows, and ends when it is closed. One thread reads all of them: one for each of hundreds, or
an event loop that wakes up for every piece, would cost more than hearing them.
"""

import json
import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any

from kwsd.audio import MAX_CHANNELS, PCM_ENCODINGS, RATES_HZ, Chunk, decode_pcm
from kwsd.capture import TAKE_SECONDS, End, Inbox, Up
from kwsd.config import Config, unix_path
from kwsd.events import Error
from kwsd.sockets import bind_tcp, bind_unix, most_connections

log = logging.getLogger("kwsd")

_HEADER_BYTES = 4096
_HEADER_SECONDS = 5.0
_NAME_LETTERS = 100
_READ_BYTES = 2**16
_GATHER_SECONDS = 0.01  # between two rounds of reading
_IDLE_SECONDS = 0.2  # for how long nobody looks whether a header is late, or the end has come
_JOIN_SECONDS = 0.5
_MOST_CLOCKS = 10_000  # of names that come once and never again


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a connection.

    Attributes:
        stream: its name in events.
        encoding: width and kind of a sample.
        live: time does not wait for it: what cannot be heard in time is lost, and `overrun`
            says so. Otherwise the sender has to wait.
    """

    stream: str
    rate_hz: int = 16000
    encoding: str = "s16le"
    channels: int = 1
    live: bool = True

    @classmethod
    def parse(cls, line: bytes) -> "Header":
        """Raises:
        ValueError: with what is wrong, and what there is.
        """
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError('the first line must be JSON, as {"stream":"hall","rate_hz":16000}') from None
        if not isinstance(data, dict):
            raise ValueError("the first line must be a JSON object")
        kinds: dict[str, Any] = {one.name: one.type for one in fields(cls)}
        for key, value in data.items():
            if key not in kinds:
                raise ValueError(f"{key!r:.40}: unknown key; there are {', '.join(kinds)}")
            if type(value) is not kinds[key]:
                raise ValueError(f"{key}: {value!r:.40} is not of type {kinds[key].__name__}")
        if not data.get("stream"):
            raise ValueError("stream: must name the stream")
        header = cls(**data)
        if not header.stream.isprintable() or len(header.stream) > _NAME_LETTERS:
            raise ValueError(f"stream: {header.stream!r:.40} is not a name of up to {_NAME_LETTERS} printable letters")
        if header.encoding not in PCM_ENCODINGS:
            raise ValueError(f"encoding: {header.encoding!r:.40} is not one of {', '.join(PCM_ENCODINGS)}")
        for key, value, (least, most) in (
            ("rate_hz", header.rate_hz, RATES_HZ),
            ("channels", header.channels, (1, MAX_CHANNELS)),
        ):
            if not least <= value <= most:
                raise ValueError(f"{key}: {value} is not between {least} and {most}")
        return header


class NetworkAudio:
    """The audio socket, and its thread.

    Args:
        config: for the address, and who may connect to it.
        inbox: gets the streams.
        taken: names that belong to other sources.
        channel: which channel of a stream is heard, counted from 1; None for the mean.
    """

    def __init__(self, config: Config, inbox: Inbox, taken: set[str], channel: Callable[[str], int | None]) -> None:
        assert config.audio
        self._config, self._address, self._path = config, config.audio, unix_path(config.audio)
        self.inbox, self.channel = inbox, channel
        self._busy = set(taken)  # names of streams that are heard now, from here or elsewhere
        self._began: dict[str, float] = {}  # when each name was first heard, for its clock
        self._senders: set[_Sender] = set()
        self._is_full = False
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="network", daemon=True)

    def start(self) -> None:
        """Raises:
        SocketError: the address cannot be used.
        """
        self._listener = bind_unix(self._path, self._config) if self._path else bind_tcp(self._address)
        self._listener.setblocking(False)
        self._most_senders = most_connections()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> None:
        """Let go of the address, and of everybody who sends."""
        self._stopping.set()
        if self._thread.ident is None:  # it was never started
            return
        self._thread.join(_JOIN_SECONDS)
        self._listener.close()
        if self._path:
            self._path.unlink(missing_ok=True)

    def claim(self, stream: str) -> float:
        """The name is a sender's; when its clock began, which is now if it has none.

        Raises:
            ValueError: somebody else has it.
        """
        if stream in self._busy:
            raise ValueError(f"stream: {stream!r:.40} is heard already")
        self._busy.add(stream)
        if stream not in self._began and len(self._began) >= _MOST_CLOCKS:
            del self._began[next(iter(self._began))]
        return self._began.setdefault(stream, time.monotonic())

    def _run(self) -> None:
        """The thread. Whatever ends it is said, so that nobody waits for a dead source."""
        try:
            self._serve()
        except Exception as error:
            self.inbox.put(self._address, End(error), waits=False)

    def _serve(self) -> None:
        """Between two rounds more may come, so that what is read is worth a wake-up."""
        while not self._stopping.is_set():
            is_waiting = any(sender.is_paused for sender in self._senders)
            for key, _ in self._selector.select(_GATHER_SECONDS if is_waiting else _IDLE_SECONDS):
                if key.data:
                    key.data.read()
                else:
                    self._accept()
            now = time.monotonic()
            for sender in [one for one in self._senders if one.is_paused or one.deadline]:
                sender.look(now)
            for sender in [one for one in self._senders if one.is_done]:
                self._let_go(sender)
            self._stopping.wait(_GATHER_SECONDS)
        for sender in list(self._senders):
            self._let_go(sender)

    def _accept(self) -> None:
        """All who wait."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor is left for it
                if not self._is_full:
                    log.warning("audio: nobody can be let in (%s)", error.strerror)
                self._is_full = True
                return
            self._is_full = False
            sender = _Sender(self, connection)
            self._senders.add(sender)
            self._selector.register(connection, selectors.EVENT_READ, sender)
            if len(self._senders) > self._most_senders:
                sender.refuse(f"{self._most_senders} streams are connected, no more can be", passing=True)

    def _let_go(self, sender: "_Sender") -> None:
        self._senders.discard(sender)
        self._selector.unregister(sender.connection)
        sender.connection.close()
        if sender.header:
            stream = sender.header.stream
            self._busy.discard(stream)
            if stream in self._began:  # a clock is not set back, though time did not wait for it
                self._began[stream] = min(self._began[stream], time.monotonic() - sender.end_seconds)
            self.inbox.put(stream, End(), waits=False)


class _Sender:
    """One connection: a header, then samples.

    Attributes:
        deadline: for the header, on the monotonic clock; 0 once it has come.
        is_paused: what has come must wait, since the sender can.
        is_done: it has gone, or was refused.
    """

    def __init__(self, server: NetworkAudio, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._server, self.connection = server, connection
        self.header: Header | None = None
        self.deadline = time.monotonic() + _HEADER_SECONDS
        self.is_paused = self.is_done = False
        self._pending = b""
        self._position = 0

    def read(self) -> None:
        """Take what has come."""
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
            return
        self._pending += data
        if self.header is None:
            line, newline, rest = self._pending.partition(b"\n")
            if not newline and len(line) < _HEADER_BYTES:
                return
            try:
                self._begin(Header.parse(line[:_HEADER_BYTES]))
            except ValueError as error:
                self.refuse(str(error))
                return
            self._pending = rest
        self._deliver()

    def look(self, now: float) -> None:
        """What is due without anything having come."""
        if self.deadline and now > self.deadline:
            self.refuse(f"no header within {_HEADER_SECONDS:g} s", passing=True)
        elif self.is_paused:
            self._deliver()

    def refuse(self, reason: str, passing: bool = False) -> None:
        with suppress(OSError):
            self.connection.send(Error(reason=reason, passing=passing).to_json().encode() + b"\n")
        self.is_done = True

    def _begin(self, header: Header) -> None:
        channel = self._server.channel(header.stream)
        if channel is not None and channel > header.channels:
            raise ValueError(f"channels: {header.channels}, but channel {channel} of it is configured to be heard")
        began = self._server.claim(header.stream)
        self.header, self._channel, self.deadline = header, channel, 0.0
        self._frame_bytes = PCM_ENCODINGS[header.encoding].itemsize * header.channels
        self._piece_bytes = max(1, round(TAKE_SECONDS * header.rate_hz)) * self._frame_bytes
        self._start_seconds = time.monotonic() - began
        self._server.inbox.put(header.stream, Up(header.rate_hz, self._start_seconds), waits=False)

    @property
    def end_seconds(self) -> float:
        """Stream time of what was sent, once the header has come."""
        assert self.header
        return self._start_seconds + self._position / self.header.rate_hz

    def _deliver(self) -> None:
        """Hand over what has come, in pieces: what waits is bounded by them."""
        header = self.header
        assert header
        while whole := min(self._piece_bytes, len(self._pending) // self._frame_bytes * self._frame_bytes):
            self.is_paused = not header.live and self._server.inbox.is_full(header.stream)
            if self.is_paused:
                return
            samples = decode_pcm(self._pending[:whole], header.encoding, header.channels, self._channel)
            self._pending = self._pending[whole:]
            self._server.inbox.put(header.stream, Chunk(samples, self._position), waits=False)
            self._position += len(samples)
