"""JSON lines over sockets: `nc -U kwsd.sock | jq`.

Law: a connection first gets `hello`, then every event, or those that it asks for. Where a token is
required, it gets nothing before it has shown the token. It stays subscribed until it closes, even
if it has ended its own side. What a client sends is handled in bounded memory and time, and cannot
affect another client.
"""

import asyncio
import logging
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from hmac import compare_digest
from socket import AF_UNIX
from typing import Any

from kwsd.limits import Crowd, Penalties, Rate
from kwsd.protocol.address import keep_alive
from kwsd.protocol.events import Error, Hello, Position
from kwsd.protocol.subscription import Subscription, parse_token
from kwsd.service.bus import Bus, Subscriber, encode
from kwsd.service.credentials import Handshake
from kwsd.service.endpoints import ACCEPTED_AT_ONCE, Endpoint, extend_backlog, raise_descriptor_limit, remove_socket

log = logging.getLogger("kwsd")

MAX_LINE_BYTES = 64 * 1024
_BUFFER_BYTES = 64 * 1024  # unread by a subscriber; beyond this, its queue fills
_LINE_SECONDS = 5.0  # for the rest of a line, and for the token
_FAREWELL_SECONDS = 1.0
_LOOK_SECONDS = 1.0  # between two looks whether a client that sends no more has closed
_MOST_NEWCOMERS = 64  # with TLS: each costs a quarter of a megabyte
_KEEP_FILE: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}  # it may be systemd's


class JsonLines:
    """Serves the bus at endpoints.

    Args:
        hello: returns the first line of a connection.

    Attributes:
        connections: those that are open.
        newcomers: those with TLS that have not finished the handshake, or not shown the token.
        penalties: how long addresses wait that showed wrong tokens.
    """

    def __init__(self, endpoints: list[Endpoint], bus: Bus, hello: Callable[[], Hello]) -> None:
        self._endpoints, self.bus, self.hello = endpoints, bus, hello
        self.connections: set[Handshake | _Connection] = set()
        self.max_connections = raise_descriptor_limit()
        self.penalties = Penalties(first_seconds=0.05, longest_seconds=4.0)
        self.newcomers: Crowd[Handshake | _Connection] = Crowd(_MOST_NEWCOMERS)
        self._warnings = Rate(per_second=0.1, burst=1)
        self._servers: list[asyncio.Server] = []
        self._inodes = {one.removed: one.removed.stat().st_ino for one in endpoints if one.removed}

    async def start(self) -> None:
        """Accept connections."""
        loop = asyncio.get_running_loop()
        for endpoint in self._endpoints:
            accept: Callable[[], asyncio.Protocol] = partial(_Connection, self, endpoint)
            if endpoint.credentials.tls:
                accept = partial(Handshake, accept, endpoint.credentials, self._begin_handshake, self._end_handshake)
            options: dict[str, Any] = {"sock": endpoint.listener, "backlog": ACCEPTED_AT_ONCE}
            if endpoint.listener.family == AF_UNIX:
                server = await loop.create_unix_server(accept, **options, **_KEEP_FILE)
            else:
                server = await loop.create_server(accept, **options)
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
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while self.connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)

    def _begin_handshake(self, handshake: Handshake) -> bool:
        if len(self.connections) >= self.max_connections:
            return False
        self.connections.add(handshake)
        self.admit(handshake)
        return True

    def _end_handshake(self, handshake: Handshake) -> None:
        self.connections.discard(handshake)
        self.newcomers.discard(handshake)

    def admit(self, newcomer: "Handshake | _Connection") -> None:
        """Let a client begin its TLS handshake, or show its token; another gives way if there are too many."""
        if gone := self.newcomers.add(newcomer, _host(newcomer.transport)):
            gone.give_way()
            if self._warnings.allows(time.monotonic()):
                log.warning("%s: too many TLS clients show no token; the oldest give way", _host(gone.transport))


def _host(transport: asyncio.Transport) -> str:
    return str((transport.get_extra_info("peername") or [""])[0])


class _Connection(asyncio.Protocol):
    """One client. It becomes a subscriber at once, or when it has shown the token."""

    def __init__(self, server: JsonLines, endpoint: Endpoint) -> None:
        self._server, self._credentials = server, endpoint.credentials
        self._is_open = False  # after TLS, the first data may come before `connection_made`
        self._has_ended = False  # its own side
        self._is_waiting = False  # for a token check, or for its delayed refusal
        self._subscriber: Subscriber | None = None
        self.transport = asyncio.Transport()  # replaced as soon as the connection is made
        self._pending = b""
        self._is_held = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_BUFFER_BYTES)
        keep_alive(transport.get_extra_info("socket"))
        n_others, most = len(self._server.connections), self._server.max_connections
        self._server.connections.add(self)
        if n_others >= most:
            self._refuse(f"{most} subscribers are connected, which is the limit", retryable=True)
        elif self._credentials.token is None:
            self._greet()
        else:
            if transport.get_extra_info("ssl_object"):
                self._server.admit(self)
            self._after(_LINE_SECONDS, self._refuse_late_token)
        self._is_open = True
        self._read_line()

    def data_received(self, data: bytes) -> None:
        self._pending += data
        if self._is_open:
            self._read_line()

    def eof_received(self) -> bool:
        """Keep a subscriber that sends no more, as `nc` does at its input's end. With TLS, asyncio cannot."""
        if self.transport.get_extra_info("ssl_object"):
            return False
        if not self._has_ended:
            self._has_ended = True
            if self._pending:  # the end of its input also ends its last line
                self.data_received(b"\n")
            if self._subscriber and self.transport.get_extra_info("socket").family != AF_UNIX:  # TCP tells only then
                self._subscriber.put_now(encode(Position(next_seq=self._server.bus.numbering.next_seq)))
            self._look_for_end()
        return bool(self._subscriber or self._is_waiting) and not self.transport.is_closing()

    def _look_for_end(self) -> None:
        """Abort the connection once the client has closed it. Without reads, only poll(2) tells."""
        if self.transport.is_closing():
            return
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), 0)
        if poll.poll(0):
            self.transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look_for_end)

    def pause_writing(self) -> None:
        self._is_held = True
        self.transport.pause_reading()  # a client that does not read is not read either
        if self._subscriber:
            self._subscriber.hold()

    def resume_writing(self) -> None:
        self._is_held = False
        if self._subscriber:
            self._subscriber.release()
        self._read_line()

    def _read_line(self) -> None:
        """Handle one line for each turn of the loop, so that many lines do not delay other clients."""
        if self.transport.is_closing() or self._is_held or self._is_waiting:
            return
        line, newline, rest = self._pending.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            self._refuse(f"line longer than {MAX_LINE_BYTES} bytes")
        elif newline:
            self._pending = rest.lstrip()  # empty lines are allowed, and take no turn each
            self.transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_line)
            if self._subscriber:
                self._clear_deadline()
            if line.strip():
                self._handle(line)
        else:
            self.transport.resume_reading()
            if line and self._subscriber and not self._deadline:
                self._after(_LINE_SECONDS, self._refuse, f"a line without its end for {_LINE_SECONDS:g} s", True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self._server.connections.discard(self)
        self._server.newcomers.discard(self)
        if self._subscriber:
            self._server.bus.unsubscribe(self._subscriber)

    def close(self) -> None:
        """Write what still waits and close; abort if the client does not read it soon."""
        if self._subscriber:
            self._server.bus.unsubscribe(self._subscriber)
            self._subscriber.finish()
        self.transport.close()
        self._after(_FAREWELL_SECONDS, self.transport.abort)

    def give_way(self) -> None:
        """Abort: a TLS client that does not answer would keep its memory for half a minute."""
        self.transport.write(encode(Error(reason="too many clients show no token; try again", retryable=True)))
        self.transport.abort()

    def _greet(self) -> None:
        self._server.newcomers.discard(self)
        self.transport.write(encode(self._server.hello()))
        self._subscriber = self._server.bus.subscribe(self.transport.write)

    def _handle(self, line: bytes) -> None:
        if self._subscriber:
            try:
                self._server.bus.resume(self._subscriber, Subscription.parse(line))
            except ValueError as error:
                self._refuse(str(error))
        else:
            self._check_token(line)

    def _check_token(self, line: bytes, has_waited: bool = False) -> None:
        """Greet a client that shows the token. An address that showed a wrong one waits, longer each time."""
        self._clear_deadline()
        self._is_waiting = True
        seconds = self._server.penalties.remaining(_host(self.transport), time.monotonic())
        if seconds and not has_waited:
            self._after(seconds, self._check_token, line, True)
        elif compare_digest(parse_token(line), self._credentials.token or b""):
            self._is_waiting = False
            self._greet()
            self._read_line()
        else:
            self._after(self._count_failure("wrong token"), self._refuse, "wrong token")

    def _refuse_late_token(self) -> None:
        self._count_failure(reason := f"no token within {_LINE_SECONDS:g} s")
        self._refuse(reason, retryable=True)

    def _count_failure(self, problem: str) -> float:
        """Count a failure of the client's address. Returns the seconds by which the refusal is delayed."""
        n, seconds = self._server.penalties.fail(host := _host(self.transport), time.monotonic())
        if n:  # each wait has one line
            log.warning("%s: %s (attempt %d); the answer waits for %.2f s", host, problem, n, seconds)
        return seconds

    def _refuse(self, reason: str, retryable: bool = False) -> None:
        self.transport.write(encode(Error(reason=reason, retryable=retryable)))
        self.close()

    def _after(self, seconds: float, do: Callable[..., None], *arguments: Any) -> None:
        """Do something later, unless `_clear_deadline` or another `_after` comes first."""
        self._clear_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, do, *arguments)

    def _clear_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
