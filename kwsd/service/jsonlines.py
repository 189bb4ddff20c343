"""JSON lines over sockets: `nc -U kwsd.sock | jq`.

Law: a connection first gets `hello`, then every event, or those that it asks for. Where a token is
required, it gets nothing before it has shown the token. What a client sends is handled in bounded
memory and time, and cannot affect another client.
"""

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from socket import AF_UNIX
from typing import Any

from kwsd.protocol.address import keep_alive
from kwsd.protocol.events import Error, Hello
from kwsd.protocol.subscription import Subscription, parse_token
from kwsd.service.bus import Bus, Subscriber, encode
from kwsd.service.endpoints import ACCEPTED_AT_ONCE, Endpoint, extend_backlog, raise_descriptor_limit, remove_socket

MAX_LINE_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024  # unread by a subscriber; beyond this, its queue fills
_LINE_SECONDS = 5.0  # for the rest of a line, for the token, and for the TLS handshake
_FAREWELL_SECONDS = 1.0
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}  # it may be systemd's


class JsonLines:
    """Serves the bus at endpoints.

    Args:
        bus: the source of the events.
        hello: returns the first line of a connection.

    Attributes:
        connections: those that are open.
    """

    def __init__(self, endpoints: list[Endpoint], bus: Bus, hello: Callable[[], Hello]) -> None:
        self._endpoints, self.bus, self.hello = endpoints, bus, hello
        self.connections: set[_Connection] = set()
        self.max_connections = raise_descriptor_limit()
        self._servers: list[asyncio.Server] = []
        self._inodes = {one.removed: one.removed.stat().st_ino for one in endpoints if one.removed}

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for endpoint in self._endpoints:
            connect = partial(_Connection, self, endpoint)
            if endpoint.listener.family == AF_UNIX:
                server = await loop.create_unix_server(
                    connect, sock=endpoint.listener, backlog=ACCEPTED_AT_ONCE, **_KEEP_FILE
                )
            else:
                server = await loop.create_server(
                    connect,
                    sock=endpoint.listener,
                    backlog=ACCEPTED_AT_ONCE,
                    ssl=endpoint.tls,
                    ssl_handshake_timeout=_LINE_SECONDS if endpoint.tls else None,
                )
            extend_backlog(endpoint.listener)
            self._servers.append(server)

    async def stop(self) -> None:
        """Accept no more connections, and give open ones a second to read what waits for them."""
        for server in self._servers:
            server.close()
        for path, inode in self._inodes.items():
            remove_socket(path, inode)
        for connection in list(self.connections):
            connection.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _FAREWELL_SECONDS
        while self.connections and loop.time() < deadline:
            await asyncio.sleep(0.01)


class _Connection(asyncio.Protocol):
    """One client. It becomes a subscriber at once, or when it has shown the token."""

    def __init__(self, server: JsonLines, endpoint: Endpoint) -> None:
        self._server, self._token = server, endpoint.token
        self._subscriber: Subscriber | None = None
        self._transport = asyncio.Transport()  # replaced as soon as the connection is made
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
            self._refuse(f"{most} subscribers are connected, which is the limit", retryable=True)
        elif self._token is None:
            self._greet()
        else:
            self._set_deadline(f"no token within {_LINE_SECONDS:g} s")

    def data_received(self, data: bytes) -> None:
        self._pending += data
        self._read_line()

    def pause_writing(self) -> None:
        self._is_held = True
        self._transport.pause_reading()  # a client that does not read is not read either
        if self._subscriber:
            self._subscriber.hold()

    def resume_writing(self) -> None:
        self._is_held = False
        if self._subscriber:
            self._subscriber.release()
        self._read_line()

    def _read_line(self) -> None:
        """Handle one line for each turn of the loop, so that many lines do not delay other clients."""
        if self._transport.is_closing() or self._is_held:
            return
        line, newline, rest = self._pending.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            self._refuse(f"line longer than {MAX_LINE_BYTES} bytes")
        elif newline:
            self._pending = rest
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_line)
            if self._subscriber:
                self._clear_deadline()
            if line.strip():  # an empty line is allowed
                self._handle(line)
        else:
            self._transport.resume_reading()
            if line and self._subscriber and not self._deadline:
                self._set_deadline(f"a line without its end for {_LINE_SECONDS:g} s")

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._server.connections.discard(self)
        if self._subscriber:
            self._server.bus.unsubscribe(self._subscriber)

    def close(self) -> None:
        """Write what still waits and close; abort if the client does not read it soon."""
        if self._subscriber:
            self._server.bus.unsubscribe(self._subscriber)
            self._subscriber.finish()
        self._transport.close()
        self._clear_deadline()
        self._deadline = asyncio.get_running_loop().call_later(_FAREWELL_SECONDS, self._transport.abort)

    def _greet(self) -> None:
        self._transport.write(encode(self._server.hello()))
        self._subscriber = self._server.bus.subscribe(self._transport.write)

    def _handle(self, line: bytes) -> None:
        if self._subscriber:
            try:
                self._server.bus.resume(self._subscriber, Subscription.parse(line))
            except ValueError as error:
                self._refuse(str(error))
        elif compare_digest(parse_token(line), self._token or b""):
            self._clear_deadline()
            self._greet()
        else:
            self._refuse("wrong token")

    def _refuse(self, reason: str, retryable: bool = False) -> None:
        self._transport.write(encode(Error(reason=reason, retryable=retryable)))
        self.close()

    def _set_deadline(self, reason: str) -> None:
        """Refuse the client after `_LINE_SECONDS`, unless `_clear_deadline` comes first; a slow client may retry."""
        self._deadline = asyncio.get_running_loop().call_later(_LINE_SECONDS, self._refuse, reason, True)

    def _clear_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
