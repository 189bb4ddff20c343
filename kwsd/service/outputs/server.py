"""The HTTP server: uvicorn on the daemon's event loop, with limits for clients.

Law: a client has a few seconds for its TLS handshake, for a request, and to read what fills its
buffer. Only a few may be connected without a request; the oldest of the busiest address gives way.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kwsd.limits import Crowd
from kwsd.service.credentials import Credentials, Handshake
from kwsd.service.endpoints import ACCEPTED_AT_ONCE, bind_tcp, extend_backlog

_REQUEST_SECONDS = 5.0
_READ_SECONDS = 20.0  # for a client that does not read
_FAREWELL_SECONDS = 0.5
_MOST_NEWCOMERS = 64
_MOST_CONNECTIONS = 512
_STOP_SECONDS = 1


class Server:
    """Serves an ASGI application.

    Args:
        address: HOST:PORT.
        credentials: without a certificate, plain HTTP is served.
    """

    def __init__(self, app: ASGIApp, address: str, credentials: Credentials) -> None:
        self._address = address
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        self._server = _Uvicorn(config, credentials)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            SocketError: the address cannot be used.
        """
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        listener = bind_tcp(self._address)
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._task.done():
            await asyncio.sleep(0)
        extend_backlog(listener)

    async def stop(self) -> None:
        connections = self._server.server_state.connections
        deadline = time.monotonic() + _FAREWELL_SECONDS
        while connections and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(connections):  # idle ones, and those that do not read
            connection.transport.abort()
        self._server.ending.set()
        if self._task:
            await asyncio.wait([self._task], timeout=2 * _STOP_SECONDS)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the daemon, and has no timer: an idle daemon must not wake up ten times a second for it."""

    def __init__(self, config: uvicorn.Config, credentials: Credentials) -> None:
        super().__init__(config)
        self._credentials = credentials
        self.ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, with kwsd's own handshake, which few clients can be in at a time."""
        await self.lifespan.startup()
        [listener] = sockets or []
        make = partial(_Protocol, self.config, self.server_state, self.lifespan.state)
        accept: Callable[[], asyncio.Protocol] = make
        if self._credentials.tls:
            accept = partial(Handshake, make, self._credentials, _begin_handshake, _Protocol.newcomers.discard)
        options: dict[str, Any] = {"sock": listener, "backlog": ACCEPTED_AT_ONCE}
        self.servers = [await asyncio.get_running_loop().create_server(accept, **options)]
        self.started = True

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()


class _Protocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request."""

    newcomers: ClassVar[Crowd["Handshake | _Protocol"]] = Crowd(_MOST_NEWCOMERS)
    _is_open = False
    _early = b""  # after TLS, the first data may come before `connection_made`
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_open = True
        self._give_seconds(_REQUEST_SECONDS)
        _admit(self)
        if self._early:
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        if not self._is_open:
            self._early += data
            return
        if not self._deadline:
            self._give_seconds(_REQUEST_SECONDS)
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete and not self.flow.write_paused:
            self._clear_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._give_seconds(_READ_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._clear_deadline()

    def give_way(self) -> None:
        self.transport.abort()

    def _give_seconds(self, seconds: float) -> None:
        """Abort the connection after this time, unless `_clear_deadline` comes first."""
        self._clear_deadline()
        self._deadline = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

    def _clear_deadline(self) -> None:
        self.newcomers.discard(self)
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None


def _admit(newcomer: "Handshake | _Protocol") -> None:
    """Count a client without a request; another gives way if there are too many."""
    host = str((newcomer.transport.get_extra_info("peername") or [""])[0])
    if gone := _Protocol.newcomers.add(newcomer, host):
        gone.give_way()


def _begin_handshake(newcomer: Handshake) -> bool:
    _admit(newcomer)
    return True
