"""JSON lines over a Unix socket: `nc -U kwsd.sock | jq`.

The law of this file: a connection first gets `hello`, then every event, or what it asks for.
What a client sends is read and judged in bounded memory; nothing that a client does touches
another one.
"""

import asyncio
import resource
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from kwsd.bus import Bus, encode
from kwsd.events import Error, Hello
from kwsd.requests import Request
from kwsd.sockets import bind

MAX_LINE_BYTES = 64 * 1024
_FAREWELL_SECONDS = 1.0
_MOST_DESCRIPTORS = 65536
_SPARE_DESCRIPTORS = 64  # for all that is not a connection


class UnixTransport:
    """Serves the bus on a Unix socket.

    Args:
        path: of the socket; its folder must exist.
        bus: what is served.
        hello: makes the first line of a connection.
    """

    def __init__(self, path: Path, bus: Bus, hello: Callable[[], Hello]) -> None:
        self._path, self._bus, self._hello = path, bus, hello
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises:
        SocketError: the path cannot be used, or a live daemon has it.
        """
        self._max_connections = _allow_many_descriptors() - _SPARE_DESCRIPTORS
        listener = bind(self._path)
        self._inode = self._path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._accept, sock=listener, limit=MAX_LINE_BYTES)

    async def stop(self) -> None:
        """Accept nobody more; give everybody a second to take what waits for them."""
        self._server.close()
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:  # not a successor's
                self._path.unlink()
        self._bus.close()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_FAREWELL_SECONDS)
            for task in late:
                task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            writer.write(encode(Error(reason=f"{self._max_connections} subscribers are connected, no more can be")))
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        subscription = self._bus.subscribe()
        writer.write(encode(self._hello()))
        resume = partial(self._bus.resume, subscription)
        listening = asyncio.create_task(_read(reader, resume))
        writing = asyncio.create_task(_write(subscription.take, writer))
        try:
            await asyncio.wait((listening, writing), return_when=asyncio.FIRST_COMPLETED)
            if listening.done() and (problem := listening.result()):
                writing.cancel()
                writer.write(encode(Error(reason=problem)))
                await asyncio.wait_for(writer.drain(), _FAREWELL_SECONDS)
        except (ConnectionError, TimeoutError):
            pass  # it has gone, or does not read: nobody to tell
        finally:
            self._bus.unsubscribe(subscription)
            listening.cancel()
            writing.cancel()
            await _close(writer)


def _allow_many_descriptors() -> int:
    """Raise this process's soft limit of open files as far as it may go, or matters; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


async def _write(take: Callable[[], Awaitable[bytes]], writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while lines := await take():
            writer.write(lines)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Send what is buffered, for a while; then let go."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), _FAREWELL_SECONDS)
    except (OSError, TimeoutError):
        writer.transport.abort()


async def _read(reader: asyncio.StreamReader, resume: Callable[[Request], None]) -> str:
    """Read until the client is gone (empty result), or sends what it should not."""
    while True:
        try:
            line = await reader.readline()
        except ValueError:  # asyncio's way to say that the limit was reached without a newline
            return f"line longer than {MAX_LINE_BYTES} bytes"
        except ConnectionError:
            return ""
        if not line:
            return ""
        if line.strip():  # an empty line is forgiven
            try:
                resume(Request.parse(line))
            except ValueError as error:
                return str(error)
