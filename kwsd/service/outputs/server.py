"""The HTTP server: uvicorn on the daemon's event loop, with limits for clients.

Law: a client has a few seconds for a request, and only a few may be connected without one; the
oldest of the busiest address gives way. A client that reads slowly fills a bounded buffer.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Generator
from typing import ClassVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from kwsd.limits import Crowd
from kwsd.service.endpoints import bind_tcp, extend_backlog

_REQUEST_SECONDS = 5.0
_MOST_NEWCOMERS = 64
_MOST_CONNECTIONS = 512
_STOP_SECONDS = 1


class Server:
    """Serves an ASGI application.

    Args:
        address: HOST:PORT.
        tls: with the certificate; None for plain HTTP.
    """

    def __init__(self, app: ASGIApp, address: str, tls: ssl.SSLContext | None) -> None:
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
            ssl_context_factory=(lambda *_: tls) if tls else None,
        )
        self._server = _Uvicorn(config)
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
        self._server.ending.set()
        if self._task:
            await asyncio.wait([self._task], timeout=2 * _STOP_SECONDS)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the daemon, and has no timer: an idle daemon must not wake up ten times a second for it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        await self.on_tick(0)
        await self.ending.wait()


class _Protocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request."""

    newcomers: ClassVar[Crowd["_Protocol"]] = Crowd(_MOST_NEWCOMERS)
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        host = self.client[0] if self.client else ""
        if gone := self.newcomers.add(self, host):
            gone.transport.abort()
        self._wait_for_request()

    def data_received(self, data: bytes) -> None:
        self._wait_for_request()
        super().data_received(data)
        if self.cycle and not self.cycle.response_complete:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        if not self._deadline:
            self._deadline = asyncio.get_running_loop().call_later(_REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        self.newcomers.discard(self)
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
