"""Wyoming: kwsd as a wake word service of Home Assistant and other voice assistants.

A client sends `detect` with the names of words, `audio-start`, `audio-chunk`s and `audio-stop`, and
gets a `detection` for each word, timed on its own clock, or `not-detected` at the end. `describe` is
answered by `info`. Source: the package `wyoming`, whose events these are.

Law: a connection that sends audio is a stream like any other, and waits when it sends faster than
kwsd processes. What a client sends is handled in bounded memory, and it is closed if it does not read.
"""

import asyncio
import io
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, write_event
from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected

from kwsd import __version__
from kwsd.audio import Chunk, PcmDecoder, PcmFormat
from kwsd.config import Config
from kwsd.limits import Crowd
from kwsd.protocol.address import keep_alive
from kwsd.protocol.events import DetectionEvent, SourceDown, parse_event
from kwsd.protocol.subscription import Subscription
from kwsd.service.bus import Subscriber
from kwsd.service.control import Control
from kwsd.service.endpoints import bind_tcp
from kwsd.service.inbox import TAKE_SECONDS
from kwsd.sources.base import End, Up
from kwsd.sources.header import RESERVED
from kwsd.typed import ProblemsError, build

log = logging.getLogger("kwsd")

_LINE_BYTES = 2**16
_PAYLOAD_BYTES = 2**20
_UNREAD_BYTES = 2**16
_MOST_IDLE, _MOST_STREAMS = 64, 256
_PAUSE_SECONDS = 0.02
_ENCODINGS = {2: "s16le", 4: "s32le"}
_AUTHOR = Attribution(name="kwsd", url="https://pypi.org/project/kwsd")


class Wyoming:
    """Serves clients at an address."""

    def __init__(self, config: Config, control: Control) -> None:
        assert config.wyoming
        self._address, self._announces = config.wyoming.removeprefix("tcp://"), config.zeroconf
        self.control, self.silent_seconds = control, config.silent_seconds
        self.idle: Crowd[_Connection] = Crowd(_MOST_IDLE)
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None
        self._announcement: Any = None

    async def start(self) -> None:
        """Listen, and announce the service if that is configured.

        Raises:
            SocketError: the address cannot be used.
        """
        listener = bind_tcp(self._address)
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=_LINE_BYTES)
        log.info("wyoming: %s", self._address)
        if self._announces:
            from kwsd.service.outputs.announce import Announcement

            self._announcement = Announcement(listener)
            await self._announcement.start()

    async def stop(self) -> None:
        if self._announcement:
            await self._announcement.stop()
        if self._server:
            self._server.close()
        for task in list(self._connections.values()):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections.values()), timeout=1)

    def new_stream(self, host: str) -> str | None:
        """A name for the stream of a client; None if there are too many."""
        names = {connection.stream for connection in self._connections}
        free = (f"{RESERVED}{host}/{n}" for n in range(1, _MOST_STREAMS + 1))
        return next((name for name in free if name not in names), None) if len(names) <= _MOST_STREAMS else None

    def info(self) -> Info:
        """What the service offers."""
        words = [
            WakeModel(
                name=word,
                description=word,
                phrase=word,
                attribution=_AUTHOR,
                installed=True,
                version=None,
                languages=[],
            )
            for word in self.control.keywords
        ]
        about = "Keyword spotter that you run yourself"
        program = WakeProgram(
            name="kwsd", description=about, attribution=_AUTHOR, installed=True, version=__version__, models=words
        )
        return Info(wake=[program])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, _BoundedReader(reader), writer)
        task = asyncio.current_task()
        assert task
        self._connections[connection] = task
        if gone := self.idle.add(connection, connection.host):
            gone.close("too many clients send no audio; try again")
        try:
            await connection.run()
        except (OSError, EOFError, asyncio.CancelledError):  # it has gone, or kwsd ends
            pass
        finally:
            del self._connections[connection]
            self.idle.discard(connection)
            connection.end()


class _BoundedReader:
    """A stream reader that refuses to read large parts: one header could ask for gigabytes of memory."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self.readline, self.at_eof = reader.readline, reader.at_eof

    async def readexactly(self, n: int) -> bytes:
        if not 0 <= n <= _PAYLOAD_BYTES:
            raise ValueError(f"a part of {n} bytes; at most {_PAYLOAD_BYTES} are read")
        return await self._reader.readexactly(n)


class _Connection:
    """One client.

    Attributes:
        host: its address.
        stream: name of its stream; empty until it sends audio.
    """

    def __init__(self, server: Wyoming, reader: _BoundedReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self.host = str((writer.get_extra_info("peername") or ["unknown"])[0])
        self.stream = ""
        self._names: set[str] | None = None  # of the words that it wants; None for all
        self._subscriber: Subscriber | None = None
        self._format: PcmFormat | None = None  # while audio comes
        self._decoder = PcmDecoder(PcmFormat())
        self._position = 0
        self._start_ms = 0  # on the client's clock
        self._n_detected = 0
        keep_alive(writer.get_extra_info("socket"))

    async def run(self) -> None:
        """Handle events until the client has gone, or sends something wrong."""
        try:
            while event := await self._read():
                await self._handle(event)
        except (ValueError, ProblemsError) as error:
            self.close(str(error))
        except TimeoutError:
            self.close(f"no audio for {self._server.silent_seconds:g} s")

    def close(self, problem: str) -> None:
        """Tell the client a problem, and close the connection."""
        self._write(Error(text=problem, code="kwsd"))
        self._writer.close()

    def end(self) -> None:
        """End the stream, and the connection."""
        self._end_audio()
        if self._subscriber:
            self._server.control.bus.unsubscribe(self._subscriber)
        self._writer.close()

    async def _read(self) -> Event | None:
        """The next event; None at the end.

        Raises:
            ValueError: it is none.
            TimeoutError: the audio stopped.
        """
        async with asyncio.timeout(self._server.silent_seconds if self._format else None):
            try:
                event = await async_read_event(self._reader)  # type: ignore[arg-type]
            except (AttributeError, KeyError, TypeError):  # JSON, but no event
                event = None
        if event is None and not self._reader.at_eof():
            raise ValueError("not an event of Wyoming")
        return event

    async def _handle(self, event: Event) -> None:
        handlers: dict[type[Eventable], Callable[[Any], None]] = {
            Describe: lambda _: self._write(self._server.info()),
            Ping: lambda ping: self._write(Pong(text=ping.text)),
            Detect: self._choose_words,
            AudioStart: self._begin_audio,
            AudioStop: lambda _: self._end_audio(),
        }
        try:
            if AudioChunk.is_type(event.type):
                await self._take_audio(AudioChunk.from_event(event))
            for kind, handle in handlers.items():
                if kind.is_type(event.type):
                    handle(kind.from_event(event))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{event.type:.40}: a key is missing or wrong ({error})") from None

    def _choose_words(self, detect: Detect) -> None:
        names, known = set(detect.names or []), self._server.control.keywords
        if names and not names & set(known):
            raise ValueError(f"no such word: {', '.join(sorted(names)):.80}; the words are {', '.join(known)}")
        self._names = names or None

    def _begin_audio(self, start: AudioStart) -> None:
        self._end_audio()
        keys = {"rate_hz": start.rate, "channels": start.channels, "encoding": _ENCODINGS.get(start.width, start.width)}
        new_format = build(PcmFormat, keys, "audio-start: ")
        if not self.stream and not self._subscribe():
            raise ValueError(f"{_MOST_STREAMS} clients send audio, which is the limit")
        self._format, self._decoder = new_format, PcmDecoder(new_format)
        self._position, self._n_detected, self._start_ms = 0, 0, start.timestamp or 0
        self._server.control.inbox.put(self.stream, Up(new_format.rate_hz, 0.0), waits=False)

    def _subscribe(self) -> bool:
        name = self._server.new_stream(self.host)
        if not name:
            return False
        self.stream, bus = name, self._server.control.bus
        self._server.idle.discard(self)
        self._subscriber = bus.subscribe(self._hear)
        bus.resume(self._subscriber, Subscription(streams=frozenset([name])))
        return True

    async def _take_audio(self, chunk: AudioChunk) -> None:
        """Put a chunk into the inbox. While the inbox is full, the client waits."""
        if not self._format:
            self._begin_audio(AudioStart(chunk.rate, chunk.width, chunk.channels, chunk.timestamp))
        assert self._format
        rate_hz, encoding = self._format.rate_hz, self._format.encoding
        if (chunk.rate, chunk.channels, _ENCODINGS.get(chunk.width)) != (rate_hz, self._format.channels, encoding):
            raise ValueError("audio-chunk: another format than in audio-start")
        inbox, piece = self._server.control.inbox, max(1, round(TAKE_SECONDS * rate_hz))
        self._decoder.push(chunk.audio)
        while self._decoder.n_samples:
            while inbox.is_full(self.stream):
                await asyncio.sleep(_PAUSE_SECONDS)
            samples = self._decoder.take(piece)
            inbox.put(self.stream, Chunk(samples, self._position), waits=False)
            self._position += len(samples)

    def _end_audio(self) -> None:
        if self._format:
            self._format = None
            self._server.control.inbox.put(self.stream, End(), waits=False)

    def _hear(self, lines: bytes) -> None:
        """Take events of the bus."""
        for event in map(parse_event, lines.splitlines()):
            if isinstance(event, DetectionEvent) and (self._names is None or event.label in self._names):
                self._n_detected += 1
                self._write(Detection(name=event.label, timestamp=self._start_ms + round(1000 * event.end_seconds)))
            elif isinstance(event, SourceDown) and not self._format and not self._n_detected:
                self._write(NotDetected())

    def _write(self, event: Eventable) -> None:
        buffer = io.BytesIO()
        write_event(event.event(), buffer)
        with suppress(OSError):
            self._writer.write(buffer.getvalue())
        if self._writer.transport.get_write_buffer_size() > _UNREAD_BYTES:
            self._writer.transport.abort()
