"""The live page: what kwsd hears, and its knobs. One page, a small JSON API, and events.

`page/openapi.json` describes the API; the page itself uses nothing else. `guard` decides about access.

Law: a threshold that is set on the page lasts until the next reload, a mute until the daemon ends.
Marks and deletions are changes on disk. The page shows the lines that keep its thresholds.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kwsd import __version__
from kwsd.config import Config
from kwsd.service.control import Control
from kwsd.service.credentials import Credentials
from kwsd.service.outputs.calibrating import Calibrating, Wish
from kwsd.service.outputs.event_stream import EventStream, subscription_of
from kwsd.service.outputs.guard import COOKIE, Guard
from kwsd.service.outputs.kept import KeptClips
from kwsd.service.outputs.metrics import EXPOSITION, Metrics, health
from kwsd.service.outputs.server import Server
from kwsd.typed import build, parse_json

T = TypeVar("T")
log = logging.getLogger("kwsd")

_PAGE = files("kwsd.service.outputs").joinpath("page")
_MOST_BODY_BYTES = 64 * 1024
_BODY_SECONDS = 5.0
_MOST_EVENT_STREAMS = 128
_EVENT_STREAM = "text/event-stream"
_EXPLAINED = (ValueError, OSError, HTTPException)
"""Errors whose text the page shows."""


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A threshold to set."""

    stream: str
    label: str
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Mute:
    """A stream to mute, or not."""

    stream: str
    muted: bool


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What was said in a clip: a word, nothing (empty), or null for no mark."""

    said: str | None

    def problems(self) -> list[str]:
        return ["said: not text that can be shown"] if self.said and not self.said.isprintable() else []


@dataclass(frozen=True, kw_only=True)
class Token:
    """The token of the configuration."""

    token: str


class LivePage:
    """Serves the page."""

    def __init__(self, config: Config, control: Control, credentials: Credentials, metrics: Metrics) -> None:
        assert config.http
        self._is_secure = credentials.tls is not None
        self._config, self._control, self._metrics = config, control, metrics
        self._kept = KeptClips(config.clips.folder) if config.clips else None
        self._calibrating = Calibrating(control)
        self._event_streams: set[EventStream] = set()
        app = Starlette(routes=self._routes(), exception_handlers=dict.fromkeys(_EXPLAINED, _explain))
        self._guard = Guard(app, config.http, credentials)
        self._server = Server(self._guard, config.http, credentials)

    async def start(self) -> None:
        """Listen.

        Raises:
            SocketError: the address cannot be used.
        """
        await self._server.start()
        log.info("live page: %s://%s", "https" if self._is_secure else "http", self._config.http)

    async def stop(self) -> None:
        self._calibrating.stop()
        for stream in list(self._event_streams):
            stream.end()
        await self._server.stop()

    def _routes(self) -> list[Route | Mount]:
        return [
            Route("/", _file("index.html"), methods=["GET"]),
            Mount("/page", StaticFiles(packages=[("kwsd.service.outputs", "page")])),
            Route("/events", self._events, methods=["GET"]),
            Route("/metrics", self._figures, methods=["GET"]),
            Route("/healthz", self._health, methods=["GET"]),
            Route("/livez", self._health, methods=["GET"]),
            Route("/api/openapi.json", _file("openapi.json"), methods=["GET"]),
            Route("/api/state", self._state, methods=["GET"]),
            Route("/api/session", self._log_in, methods=["POST"]),
            Route("/api/thresholds", self._set_threshold, methods=["PUT"]),
            Route("/api/muted", self._mute, methods=["PUT"]),
            Route("/api/clips", self._list_clips, methods=["GET"]),
            Route("/api/clips/{name}", self._play_clip, methods=["GET"]),
            Route("/api/clips/{name}", self._mark_clip, methods=["PUT"]),
            Route("/api/clips/{name}", self._delete_clip, methods=["DELETE"]),
            Route("/api/calibration", self._calibration, methods=["GET"]),
            Route("/api/calibration", self._calibrate, methods=["POST"]),
            Route("/api/calibration", self._stop_calibration, methods=["DELETE"]),
        ]

    async def _state(self, request: Request) -> Response:
        state, control = self._control.state(), self._control
        streams = [
            {
                "name": name,
                "is_up": figures.is_up,
                "down": "" if figures.is_up else figures.down,
                "muted": control.is_muted(name),
                "heard_seconds": round(figures.heard_seconds, 1),
                "lost_seconds": round(figures.lost_seconds, 1),
                "thresholds": control.thresholds(name),
                "is_configured": name in self._config.streams,
            }
            for name, figures in state.streams.items()
        ]
        return JSONResponse(
            {
                "version": __version__,
                "boot_id": control.hello().boot_id,
                "model": state.model,
                "provider": state.provider,
                "keywords": control.keywords,
                "streams": streams,
                "has_clips": self._kept is not None,
                "needs_token": self._guard.has_token,
            }
        )

    async def _events(self, request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type=_EVENT_STREAM)
        if len(self._event_streams) >= _MOST_EVENT_STREAMS:
            raise HTTPException(503, f"{_MOST_EVENT_STREAMS} pages are open, which is the limit")
        stream = EventStream(self._control, subscription_of(request), self._event_streams)
        return StreamingResponse(stream.frames(), media_type=_EVENT_STREAM)

    async def _figures(self, request: Request) -> Response:
        return Response(self._metrics.exposition(), media_type=EXPOSITION)

    async def _health(self, request: Request) -> Response:
        answer = health(request.url.path, self._control.state())
        assert answer
        return JSONResponse(answer, 200 if answer["status"] == "ok" else 503)

    async def _log_in(self, request: Request) -> Response:
        shown = (await _body(request, Token)).token
        if not await self._guard.is_token(shown, request.client.host if request.client else ""):
            raise HTTPException(401, "wrong token")
        response = Response(status_code=204)
        secret = self._guard.new_session()
        response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=self._is_secure)
        return response

    async def _set_threshold(self, request: Request) -> Response:
        wish = await _body(request, Threshold)
        self._control.set_threshold(wish.stream, wish.label, wish.threshold)
        return Response(status_code=204)

    async def _mute(self, request: Request) -> Response:
        wish = await _body(request, Mute)
        self._control.mute(wish.stream, wish.muted)
        return Response(status_code=204)

    async def _list_clips(self, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(self._kept.newest) if self._kept else [])

    async def _play_clip(self, request: Request) -> Response:
        _, path = self._clip(request)
        return FileResponse(path, media_type="audio/wav")

    async def _mark_clip(self, request: Request) -> Response:
        kept, path = self._clip(request)
        said = (await _body(request, Mark)).said
        await asyncio.to_thread(kept.mark, path, said)
        return Response(status_code=204)

    async def _delete_clip(self, request: Request) -> Response:
        kept, path = self._clip(request)
        await asyncio.to_thread(kept.delete, path)
        return Response(status_code=204)

    def _clip(self, request: Request) -> tuple[KeptClips, Path]:
        path = self._kept and self._kept.path(request.path_params["name"])
        if not self._kept or not path:
            raise HTTPException(404, "no such clip")
        return self._kept, path

    async def _calibration(self, request: Request) -> Response:
        return JSONResponse(self._calibrating.status())

    async def _calibrate(self, request: Request) -> Response:
        self._calibrating.start(await _body(request, Wish))
        return JSONResponse(self._calibrating.status(), 202)

    async def _stop_calibration(self, request: Request) -> Response:
        self._calibrating.stop()
        return JSONResponse(self._calibrating.status())


def _file(name: str) -> Callable[[Request], Any]:
    async def respond(request: Request) -> Response:
        return FileResponse(str(_PAGE / name))

    return respond


async def _body(request: Request, kind: type[T]) -> T:
    """The body of a request, small and soon.

    Raises:
        ValueError: with every problem.
        HTTPException: it is too large, too slow, or not said to be JSON, as a form of another site would be.
    """
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "send application/json")
    data = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                data += part
                if len(data) > _MOST_BODY_BYTES:
                    raise HTTPException(413, f"at most {_MOST_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise HTTPException(400, "the body has no end") from None
    except TimeoutError:
        raise HTTPException(408, f"no body within {_BODY_SECONDS:g} s") from None
    return build(kind, parse_json(data, "the body is not JSON"))


async def _explain(request: Request, error: Exception) -> Response:
    match error:
        case HTTPException():
            status, text = error.status_code, error.detail
        case OSError():  # such as a full disk, below a clip
            status, text = 500, error.strerror or str(error)
        case _:
            status, text = 400, str(error)
    return JSONResponse({"error": text}, status)
