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
from functools import lru_cache
from itertools import count
from typing import TYPE_CHECKING, Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable, async_read_event, write_event
from wyoming.info import Attribution, Describe, Info, WakeModel, WakeProgram
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect

from kwsd import __version__
from kwsd.audio import PcmFormat
from kwsd.config import RESERVED, Config
from kwsd.limits import Crowd
from kwsd.plain import plain
from kwsd.protocol.address import keep_alive
from kwsd.service.control import Control
from kwsd.service.endpoints import ACCEPTED_AT_ONCE, bind_tcp, extend_backlog
from kwsd.service.outputs.utterance import ENCODINGS, Start, Utterance
from kwsd.typed import ProblemsError, build

if TYPE_CHECKING:  # zeroconf is imported only if it is wanted
    from kwsd.service.outputs.announce import Announcement

log = logging.getLogger("kwsd")

_LINE_BYTES = 2**16
_PAYLOAD_BYTES = 2**20
_HIGH_BYTES, _MOST_UNREAD_BYTES = 2**14, 2**17  # bytes unread by a client: kwsd stops reading it; kwsd closes it
_MOST_IDLE, _MOST_STREAMS = 64, 256
_AUTHOR = Attribution(name="kwsd", url="")


class Wyoming:
    """Serves clients at an address, which it announces if that is wanted."""

    def __init__(self, config: Config, control: Control, announcement: "Announcement | None") -> None:
        assert config.wyoming
        self._address, self._announcement = config.wyoming.removeprefix("tcp://"), announcement
        self.control, self.silent_seconds = control, config.silent_seconds
        self.idle: Crowd[_Connection] = Crowd(_MOST_IDLE)
        self.names: set[str] = set()  # of streams
        self._connections: dict[_Connection, asyncio.Task[None]] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, and announce the service if that is configured.

        Raises:
            SocketError: the address cannot be used.
        """
        listener = bind_tcp(self._address)
        self._server = await asyncio.start_server(
            self._accept, sock=listener, limit=_LINE_BYTES, backlog=ACCEPTED_AT_ONCE
        )
        extend_backlog(listener)
        log.info("wyoming: %s", self._address)
        if self._announcement:
            await self._announcement.start(listener)

    async def stop(self) -> None:
        if self._announcement:
            await self._announcement.stop()
        if self._server:
            self._server.close()
        for task in list(self._connections.values()):
            task.cancel()
        if self._connections:
            await asyncio.wait(list(self._connections.values()), timeout=1)

    def new_name(self, host: str) -> str:
        """A name for a stream of a client.

        Raises:
            ValueError: there are too many.
        """
        if len(self.names) >= _MOST_STREAMS:
            raise ValueError(f"{_MOST_STREAMS} clients send audio, which is the limit")
        name = next(name for n in count(1) if (name := f"{RESERVED}{host}/{n}") not in self.names)
        self.names.add(name)
        return name

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, _BoundedReader(reader), writer)
        task = asyncio.current_task()
        assert task
        self._connections[connection] = task
        self.admit(connection)
        try:
            await connection.run()
        except (OSError, EOFError, asyncio.CancelledError):  # it has gone, or kwsd ends
            pass
        finally:
            del self._connections[connection]
            connection.end()
            self.idle.discard(connection)

    def admit(self, connection: "_Connection") -> None:
        """Count a client that sends no audio; another gives way if there are too many."""
        if gone := self.idle.add(connection, connection.host):
            gone.give_way()


@lru_cache(maxsize=1)
def _info(words: tuple[str, ...]) -> Info:
    """What the service offers."""
    models = [
        WakeModel(
            name=word, description=word, phrase=word, attribution=_AUTHOR, installed=True, version=None, languages=[]
        )
        for word in words
    ]
    about = "Keyword spotter that you run yourself"
    program = WakeProgram(
        name="kwsd", description=about, attribution=_AUTHOR, installed=True, version=__version__, models=models
    )
    return Info(wake=[program])


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
    """

    def __init__(self, server: Wyoming, reader: _BoundedReader, writer: asyncio.StreamWriter) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self.host = str((writer.get_extra_info("peername") or ["unknown"])[0])
        self._words: set[str] | None = None  # that it wants; None for all
        self._utterance: Utterance | None = None  # while audio comes
        writer.transport.set_write_buffer_limits(_HIGH_BYTES)
        keep_alive(writer.get_extra_info("socket"))

    async def run(self) -> None:
        """Handle events until the client has gone, or sends something wrong."""
        try:
            while not self._writer.is_closing() and (event := await self._read()):
                await self._handle(event)
                await self._writer.drain()  # a client that does not read is not read either
                await asyncio.sleep(0)  # many events at once do not delay others
        except (ValueError, ProblemsError) as error:
            self.close(str(error))
        except TimeoutError:
            self.close(f"no audio for {self._server.silent_seconds:g} s")

    def close(self, problem: str) -> None:
        """Tell the client a problem, and close the connection."""
        self.write(Error(text=plain(problem), code="kwsd"))
        self._writer.close()

    def give_way(self) -> None:
        self.write(Error(text="too many clients send no audio; try again", code="kwsd"))
        self._writer.transport.abort()

    def end(self) -> None:
        """End the audio, and the connection."""
        self._stop_utterance()
        self._writer.close()

    def write(self, event: Eventable) -> None:
        """Send an event, or abort the connection of a client that does not read."""
        if self._writer.is_closing():
            return
        buffer = io.BytesIO()
        write_event(event.event(), buffer)
        self._writer.write(buffer.getvalue())
        if self._writer.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self._writer.transport.abort()

    async def _read(self) -> Event | None:
        """The next event; None at the end.

        Raises:
            ValueError: it is none.
            TimeoutError: the audio stopped.
        """
        async with asyncio.timeout(self._server.silent_seconds if self._utterance else None):
            try:
                event = await async_read_event(self._reader)  # type: ignore[arg-type]
            except (AttributeError, KeyError, TypeError, RecursionError):  # JSON, but no event
                raise ValueError("not an event of Wyoming") from None
        if event is None and not self._reader.at_eof():
            raise ValueError("not an event of Wyoming")
        return event

    async def _handle(self, event: Event) -> None:
        handlers: dict[type[Eventable], Callable[[Any], None]] = {
            Describe: lambda _: self.write(_info(tuple(self._server.control.keywords))),
            Ping: lambda ping: self.write(Pong(text=ping.text)),
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
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{event.type!s:.40}: a key is missing or wrong ({error!s:.80})") from None

    def _choose_words(self, detect: Detect) -> None:
        words, known = set(detect.names or []), self._server.control.keywords
        if words and not words & set(known):
            raise ValueError(f"no such word: {', '.join(sorted(words)):.80}; the words are {', '.join(known)}")
        self._words = words or None

    def _begin_audio(self, start: AudioStart) -> None:
        self._stop_utterance()
        keys = {"rate_hz": start.rate, "channels": start.channels, "encoding": ENCODINGS.get(start.width, start.width)}
        pcm = build(PcmFormat, keys, "audio-start: ")
        start_ms = build(Start, {"timestamp": start.timestamp}, "audio-start: ").timestamp or 0
        name = self._server.new_name(self.host)
        self._server.idle.discard(self)
        self._utterance = Utterance(
            self._server.control, name, pcm, start_ms, self._words, self.write, self._server.names.discard
        )

    async def _take_audio(self, chunk: AudioChunk) -> None:
        if not self._utterance:
            self._begin_audio(AudioStart(chunk.rate, chunk.width, chunk.channels, chunk.timestamp))
        assert self._utterance
        await self._utterance.take(chunk)

    def _end_audio(self) -> None:
        if self._utterance:
            self._stop_utterance()
            self._server.admit(self)

    def _stop_utterance(self) -> None:
        if self._utterance:
            self._utterance.stop()
            self._utterance = None
