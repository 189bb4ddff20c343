"""JSON lines over sockets: `nc -U kwsd.sock | jq`.

The law of this file: a connection first gets `hello`, then every event, or what it asks for;
where a token is needed, it gets nothing before it has shown it. What a client sends is read
and judged in bounded memory and time; nothing that a client does touches another one.
"""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from socket import AF_UNIX
from typing import Any

from kwsd.bus import Bus, Subscription, encode
from kwsd.events import Error, Hello
from kwsd.requests import Request, parse_token
from kwsd.sockets import ACCEPTED_AT_ONCE, Door, keep_alive, most_connections, queue_many

MAX_LINE_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024  # of what a subscriber does not read; then its queue fills
_LINE_SECONDS = 5.0  # for a line that was begun, for the token, and for the handshake of TLS
_FAREWELL_SECONDS = 1.0
_KEPT_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}  # it may be systemd's


class JsonLines:
    """Serves the bus through doors.

    Args:
        bus: what is served.
        hello: makes the first line of a connection.

    Attributes:
        connections: that are open.
    """

    def __init__(self, doors: list[Door], bus: Bus, hello: Callable[[], Hello]) -> None:
        self._doors, self.bus, self.hello = doors, bus, hello
        self.connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []
        self._inodes = {door.removed: door.removed.stat().st_ino for door in doors if door.removed}

    async def start(self) -> None:
        """Let subscribers in."""
        loop = asyncio.get_running_loop()
        self.max_connections = most_connections()
        for door in self._doors:
            connect = partial(_Connection, self, door)
            if door.listener.family == AF_UNIX:
                server = await loop.create_unix_server(
                    connect, sock=door.listener, backlog=ACCEPTED_AT_ONCE, **_KEPT_FILE
                )
            else:
                server = await loop.create_server(
                    connect,
                    sock=door.listener,
                    backlog=ACCEPTED_AT_ONCE,
                    ssl=door.tls,
                    ssl_handshake_timeout=_LINE_SECONDS if door.tls else None,
                )
            queue_many(door.listener)
            self._servers.append(server)

    async def stop(self) -> None:
        """Accept nobody more; give everybody a second to take what waits for them."""
        for server in self._servers:
            server.close()
        for path, inode in self._inodes.items():
            if path.exists() and path.stat().st_ino == inode:  # not a successor's
                path.unlink(missing_ok=True)
        for connection in list(self.connections):
            connection.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FAREWELL_SECONDS
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)


class _Connection(asyncio.Protocol):
    """One client: nobody, until it has shown the token, then a subscriber."""

    def __init__(self, server: JsonLines, door: Door) -> None:
        self._server, self._token = server, door.token
        self._subscription: Subscription | None = None
        self._pending = b""
        self._is_held = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(_BUFFER_BYTES)
        keep_alive(transport.get_extra_info("socket"))
        n_others, most = len(self._server.connections), self._server.max_connections
        self._server.connections.add(self)
        if n_others >= most:
            self._refuse(f"{most} subscribers are connected, no more can be", passing=True)
        elif self._token is None:
            self._welcome()
        else:
            self._within(_LINE_SECONDS, f"no token within {_LINE_SECONDS:g} s")

    def data_received(self, data: bytes) -> None:
        self._pending += data
        self._read_on()

    def pause_writing(self) -> None:
        self._is_held = True
        self._transport.pause_reading()  # who takes nothing is not listened to either
        if self._subscription:
            self._subscription.hold()

    def resume_writing(self) -> None:
        self._is_held = False
        if self._subscription:
            self._subscription.release()
        self._read_on()

    def _read_on(self) -> None:
        """One line a turn of the loop, and none from who does not read: many cost the others nothing."""
        if self._transport.is_closing() or self._is_held:
            return
        line, newline, rest = self._pending.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            self._refuse(f"line longer than {MAX_LINE_BYTES} bytes")
        elif newline:
            self._pending = rest
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)
            if self._subscription:
                self._in_time()
            if line.strip():  # an empty line is forgiven
                self._judge(line)
        else:
            self._transport.resume_reading()
            if line and self._subscription and not self._deadline:
                self._within(_LINE_SECONDS, f"a line without its end for {_LINE_SECONDS:g} s")

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        self._server.connections.discard(self)
        if self._subscription:
            self._server.bus.unsubscribe(self._subscription)

    def close(self) -> None:
        """End with what still waits, unless it is not taken soon."""
        if self._subscription:
            self._server.bus.unsubscribe(self._subscription)
            self._subscription.finish()
        self._transport.close()
        self._in_time()
        self._deadline = asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._transport.abort)

    def _welcome(self) -> None:
        self._transport.write(encode(self._server.hello()))
        self._subscription = self._server.bus.subscribe(self._transport.write)

    def _judge(self, line: bytes) -> None:
        if self._subscription:
            try:
                self._server.bus.resume(self._subscription, Request.parse(line))
            except ValueError as error:
                self._refuse(str(error))
        elif _is_same(parse_token(line), self._token or b""):
            self._in_time()
            self._welcome()
        else:
            self._refuse("wrong token")

    def _refuse(self, reason: str, passing: bool = False) -> None:
        self._transport.write(encode(Error(reason=reason, passing=passing)))
        self.close()

    def _within(self, seconds: float, reason: str) -> None:
        """Refuse then, unless what is waited for comes in time; a slow way here may be faster later."""
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._refuse, reason, True)

    def _in_time(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None


def _is_same(shown: bytes, token: bytes) -> bool:
    from hmac import compare_digest  # loads OpenSSL, which few need

    return compare_digest(shown, token)
