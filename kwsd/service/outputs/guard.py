"""Access control for the live page: other sites are refused; reading from this machine needs no token.

Law: a page of another site can neither read nor change anything here. It is refused by what
browsers say about a request (Sec-Fetch-Site, Origin), and by the name in Host: another name for
this machine's address is DNS rebinding. Sources: Fetch Metadata (W3C), OWASP on CSRF.
"""

import asyncio
import re
import secrets
import socket
import time
from collections import deque
from hmac import compare_digest
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kwsd.limits import Penalties
from kwsd.protocol.address import is_loopback
from kwsd.service.credentials import Credentials

COOKIE = "kwsd"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_MOST_SESSIONS = 100
_READS = ("GET", "HEAD")
_FREE = ("/", "/livez", "/api/session")
"""Paths that need no token: the page itself, whether the daemon lives, and showing the token."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "media-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware that refuses requests that may not be answered.

    Args:
        address: HOST:PORT that is served. On loopback, reading needs no token.
        credentials: their token, if any, is needed for changes, and for reading from elsewhere.
    """

    def __init__(self, app: ASGIApp, address: str, credentials: Credentials) -> None:
        self._app, self._credentials = app, credentials
        self._is_open = is_loopback(address)
        host = address.rpartition(":")[0]
        machine = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), machine, f"{machine}.local", socket.getfqdn().lower()}
        self._sessions: deque[tuple[str, int]] = deque(maxlen=_MOST_SESSIONS)  # secret, and `n_changes` of then
        self._penalties = Penalties(first_seconds=0.05, longest_seconds=4.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if refusal := await self._refusal(HTTPConnection(scope)):
            await refusal(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_guarded)

    @property
    def has_token(self) -> bool:
        return self._credentials.token is not None

    def new_session(self) -> str:
        """A secret for the cookie of a browser that has shown the token. It is valid until the token changes."""
        secret = secrets.token_urlsafe(32)
        self._sessions.append((secret, self._credentials.n_changes))
        return secret

    async def is_token(self, shown: str, host: str) -> bool:
        """Whether a text is the token. An address that showed a wrong one waits, longer each time."""
        now = time.monotonic()
        await asyncio.sleep(self._penalties.remaining(host, now))
        token = self._credentials.token
        if token is not None and compare_digest(shown.encode(errors="replace"), token):
            return True
        _, seconds = self._penalties.fail(host, time.monotonic())
        await asyncio.sleep(seconds)
        return False

    async def _refusal(self, request: HTTPConnection) -> PlainTextResponse | None:
        headers, method, path = request.headers, request.scope["method"], request.scope["path"]  # not url: it has Host
        if not self._is_ours(_host_name(headers)):
            return PlainTextResponse("this name is not a name of this machine; use its address\n", 421)
        if not _is_same_site(headers, method, path):
            return PlainTextResponse("pages of other sites may not use this one\n", 403)
        is_page = method in _READS and path.startswith("/page/")
        is_free = path in _FREE or is_page or (self._is_open and method in _READS)
        session = (request.cookies.get(COOKIE), self._credentials.n_changes)
        if self._credentials.token is None or is_free or session in self._sessions:
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and await self.is_token(shown, request.client.host if request.client else ""):
            return None
        return PlainTextResponse("show the token: Authorization: Bearer TOKEN\n", 401, {"WWW-Authenticate": "Bearer"})

    def _is_ours(self, name: str) -> bool:
        try:
            return bool(ip_address(name))
        except ValueError:
            return name in self._names


def _host_name(headers: Headers) -> str:
    """The host that the client asked for, without its port; empty if it is none."""
    found = _HOST.fullmatch(headers.get("host", "").lower())
    return found[1].strip("[]").removesuffix(".") if found else ""


def _is_same_site(headers: Headers, method: str, path: str) -> bool:
    site = headers.get("sec-fetch-site", "none")
    is_visit = method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("same-origin", "none") and not is_visit:
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
