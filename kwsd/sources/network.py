"""Raw PCM from other programs, many streams at once.

    (echo '{"stream":"hall","rate_hz":16000}'; arecord -t raw -f S16_LE -r 16000) | nc -U audio.sock

The law of this file: a connection is a stream. It begins with one line of JSON that says what
follows, and ends when it is closed. It lives on the daemon's event loop, since a thread for
each of hundreds of streams would cost more than hearing them.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from kwsd.audio import MAX_CHANNELS, PCM_ENCODINGS, RATES_HZ, Chunk, decode_pcm
from kwsd.capture import TAKE_SECONDS, End, Inbox, Up
from kwsd.config import unix_path
from kwsd.events import Error
from kwsd.sockets import ACCEPTED_AT_ONCE, bind, bind_tcp, most_connections, queue_many

_HEADER_BYTES = 4096
_HEADER_SECONDS = 5.0
_PAUSE_SECONDS = 0.02
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
                raise ValueError(f"{key}: unknown key; there are {', '.join(kinds)}")
            if type(value) is not kinds[key]:
                raise ValueError(f"{key}: {value!r:.40} is not of type {kinds[key].__name__}")
        if not data.get("stream"):
            raise ValueError("stream: must name the stream")
        header = cls(**data)
        if header.encoding not in PCM_ENCODINGS:
            raise ValueError(f"encoding: {header.encoding!r:.40} is not one of {', '.join(PCM_ENCODINGS)}")
        for key, value, (least, most) in (
            ("rate_hz", header.rate_hz, RATES_HZ),
            ("channels", header.channels, (1, MAX_CHANNELS)),
        ):
            if not least <= value <= most:
                raise ValueError(f"{key}: {value} is not between {least} and {most}")
        return header


@dataclass(slots=True)
class _Shared:
    """What all connections share.

    Attributes:
        busy: names of streams that are heard now, from here or elsewhere.
        began: when each name was first heard, for its clock.
        channel: which channel of a stream is heard.
    """

    inbox: Inbox
    busy: set[str]
    channel: Callable[[str], int | None]
    began: dict[str, float] = field(default_factory=dict)
    connections: set[asyncio.Transport] = field(default_factory=set)
    most_connections: int = 1

    def began_at(self, stream: str) -> float:
        """When a stream's clock began: now, if it has none."""
        if stream not in self.began and len(self.began) >= _MOST_CLOCKS:
            del self.began[next(iter(self.began))]
        return self.began.setdefault(stream, time.monotonic())


class NetworkAudio:
    """The audio socket.

    Args:
        address: path of a Unix socket, or HOST:PORT of this machine.
        inbox: gets the streams.
        taken: names that belong to other sources.
        channel: which channel of a stream is heard, counted from 1; None for the mean.
    """

    def __init__(self, address: str, inbox: Inbox, taken: set[str], channel: Callable[[str], int | None]) -> None:
        self._address, self._path = address, unix_path(address)
        self._shared = _Shared(inbox, set(taken), channel)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Raises:
        SocketError: the address cannot be used.
        """
        loop = asyncio.get_running_loop()
        create, listener = (
            (loop.create_unix_server, bind(self._path)) if self._path else (loop.create_server, bind_tcp(self._address))
        )
        self._shared.most_connections = most_connections()
        self._server = await create(lambda: _Sender(self._shared), sock=listener, backlog=ACCEPTED_AT_ONCE)
        queue_many(listener)

    def stop(self) -> None:
        """Let go of the address, and of everybody who sends."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._shared.connections):
            connection.abort()
        if self._path:
            with suppress(FileNotFoundError):
                self._path.unlink()


class _Sender(asyncio.Protocol):
    """One connection: a header, then samples."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._header: Header | None = None
        self._pending = b""
        self._position = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._shared.connections.add(transport)
        self._deadline = asyncio.get_running_loop().call_later(
            _HEADER_SECONDS, self._refuse, f"no header within {_HEADER_SECONDS:g} s"
        )
        if len(self._shared.connections) > self._shared.most_connections:
            self._refuse(f"{self._shared.most_connections} streams are connected, no more can be")

    def data_received(self, data: bytes) -> None:
        self._pending += data
        if self._header is None:
            line, newline, rest = self._pending.partition(b"\n")
            if not newline and len(line) < _HEADER_BYTES:
                return
            try:
                self._begin(Header.parse(line[:_HEADER_BYTES]))
            except ValueError as error:
                self._refuse(str(error))
                return
            self._pending = rest
        self._deliver()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._shared.connections.discard(self._transport)
        if self._header:
            self._shared.busy.discard(self._header.stream)
            self._shared.inbox.put(self._header.stream, End(), waits=False)
            self._header = None

    def _begin(self, header: Header) -> None:
        if header.stream in self._shared.busy:
            raise ValueError(f"stream: {header.stream!r:.40} is heard already")
        channel = self._shared.channel(header.stream)
        if channel is not None and channel > header.channels:
            raise ValueError(f"channels: {header.channels}, but channel {channel} of it is configured to be heard")
        self._deadline.cancel()
        self._header = header
        self._shared.busy.add(header.stream)
        began = self._shared.began_at(header.stream)
        self._shared.inbox.put(header.stream, Up(header.rate_hz, time.monotonic() - began), waits=False)

    def _deliver(self) -> None:
        """Hand over what has come, in pieces: what waits is bounded by them."""
        header = self._header
        if header is None:
            return
        frame_bytes = PCM_ENCODINGS[header.encoding].itemsize * header.channels
        piece_bytes = max(1, round(TAKE_SECONDS * header.rate_hz)) * frame_bytes
        channel = self._shared.channel(header.stream)
        while whole := min(piece_bytes, len(self._pending) // frame_bytes * frame_bytes):
            if not header.live and self._shared.inbox.is_full(header.stream):
                self._transport.pause_reading()
                asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._deliver)
                return
            samples = decode_pcm(self._pending[:whole], header.encoding, header.channels, channel)
            self._pending = self._pending[whole:]
            self._shared.inbox.put(header.stream, Chunk(samples, self._position), waits=False)
            self._position += len(samples)
        self._transport.resume_reading()

    def _refuse(self, reason: str) -> None:
        self._deadline.cancel()
        self._transport.write(Error(reason=reason).to_json().encode() + b"\n")
        self._transport.close()
