"""JSON lines over sockets: `nc -U kwsd.sock | jq`.

The law of this file: a connection first gets `hello`, then every event, or what it asks for;
where a token is needed, it gets nothing before it has shown it. What a client sends is read
and judged in bounded memory and time; nothing that a client does touches another one.
"""

import asyncio
import resource
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from socket import AF_UNIX

from kwsd.bus import Bus, encode
from kwsd.events import Error, Hello
from kwsd.requests import Request, parse_token
from kwsd.sockets import Door

MAX_LINE_BYTES = 64 * 1024
_LINE_SECONDS = 5.0  # for a line that was begun, for the token, and for the handshake of TLS
_FAREWELL_SECONDS = 1.0
_MOST_DESCRIPTORS = 65536
_SPARE_DESCRIPTORS = 64  # for all that is not a connection


class JsonLines:
    """Serves the bus through doors.

    Args:
        bus: what is served.
        hello: makes the first line of a connection.
    """

    def __init__(self, doors: list[Door], bus: Bus, hello: Callable[[], Hello]) -> None:
        self._doors, self._bus, self._hello = doors, bus, hello
        self._connections: set[asyncio.Task[None]] = set()
        self._servers: list[asyncio.Server] = []
        self._inodes = {door.removed: door.removed.stat().st_ino for door in doors if door.removed}

    @property
    def n_connections(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Let subscribers in."""
        self._max_connections = _allow_many_descriptors() - _SPARE_DESCRIPTORS
        for door in self._doors:
            accept = partial(self._accept, door)
            if door.listener.family == AF_UNIX:
                server = await asyncio.start_unix_server(accept, sock=door.listener)
            else:
                limit = _LINE_SECONDS if door.tls else None
                server = await asyncio.start_server(
                    accept, sock=door.listener, ssl=door.tls, ssl_handshake_timeout=limit
                )
            self._servers.append(server)

    async def stop(self) -> None:
        """Accept nobody more; give everybody a second to take what waits for them."""
        for server in self._servers:
            server.close()
        for path, inode in self._inodes.items():
            with suppress(FileNotFoundError):
                if path.stat().st_ino == inode:  # not a successor's
                    path.unlink()
        self._bus.close()
        if self._connections:
            _, late = await asyncio.wait(self._connections, timeout=_FAREWELL_SECONDS)
            for task in late:
                task.cancel()

    def _accept(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= self._max_connections:
            writer.write(encode(Error(reason=f"{self._max_connections} subscribers are connected, no more can be")))
            writer.close()
            return
        task = asyncio.create_task(self._serve(door, reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, door: Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with aclosing(_lines(reader)) as lines:
                if door.token is not None:
                    await _show_token(lines, door.token)
                await self._tell(lines, writer)
        except ValueError as problem:
            await _refuse(writer, str(problem))
        except OSError:
            pass  # it has gone, or does not read: nobody to tell
        finally:
            await _close(writer)

    async def _tell(self, lines: AsyncIterator[bytes], writer: asyncio.StreamWriter) -> None:
        """Send what the subscriber wants until it goes.

        Raises:
            ValueError: it sent what it should not.
        """
        subscription = self._bus.subscribe()
        writer.write(encode(self._hello()))
        listening = asyncio.create_task(_listen(lines, partial(self._bus.resume, subscription)))
        writing = asyncio.create_task(_write(subscription.take, writer))
        try:
            await asyncio.wait((listening, writing), return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
        finally:
            self._bus.unsubscribe(subscription)
            listening.cancel()
            writing.cancel()
            await asyncio.wait((listening, writing))


def _allow_many_descriptors() -> int:
    """Raise this process's soft limit of open files as far as it may go, or matters; the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = _MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _MOST_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


async def _lines(reader: asyncio.StreamReader) -> AsyncGenerator[bytes, None]:
    """Whole lines, until the client is gone.

    Raises:
        ValueError: one is too long, or was begun and not ended in time.
    """
    pending, deadline = b"", None
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                data = await reader.read(MAX_LINE_BYTES)
        except TimeoutError:
            raise ValueError(f"a line without its end for {_LINE_SECONDS:g} s") from None
        if not data:
            return
        *lines, pending = (pending + data).split(b"\n")
        if lines or deadline is None:
            deadline = asyncio.get_running_loop().time() + _LINE_SECONDS if pending else None
        for line in lines:
            if len(line) > MAX_LINE_BYTES:
                raise ValueError(f"line longer than {MAX_LINE_BYTES} bytes")
            if line.strip():  # an empty line is forgiven
                yield line
        if len(pending) > MAX_LINE_BYTES:
            raise ValueError(f"line longer than {MAX_LINE_BYTES} bytes")


async def _show_token(lines: AsyncIterator[bytes], token: bytes) -> None:
    """Raises:
    ValueError: the first line does not show it.
    """
    from hmac import compare_digest  # loads OpenSSL

    try:
        async with asyncio.timeout(_LINE_SECONDS):
            line = await anext(lines, b"")
    except TimeoutError:
        raise ValueError(f"no token within {_LINE_SECONDS:g} s") from None
    if not compare_digest(parse_token(line), token):
        raise ValueError("wrong token")


async def _listen(lines: AsyncIterator[bytes], resume: Callable[[Request], None]) -> None:
    with suppress(ConnectionError):
        async for line in lines:
            resume(Request.parse(line))


async def _write(take: Callable[[], Awaitable[bytes]], writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while lines := await take():
            writer.write(lines)
            await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, reason: str) -> None:
    writer.write(encode(Error(reason=reason)))
    with suppress(OSError):  # among them that it does not read
        await asyncio.wait_for(writer.drain(), _FAREWELL_SECONDS)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Send what is buffered, for a while; then let go."""
    writer.close()
    try:
        await asyncio.wait_for(writer.wait_closed(), _FAREWELL_SECONDS)
    except (OSError, TimeoutError):
        writer.transport.abort()
