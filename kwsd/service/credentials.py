"""Credentials, and the TLS handshake of a client before the protocol that serves it.

Law: a token or password that every user can read is refused. A client that does not finish its handshake costs
little, and not for long.
"""

import asyncio
import codecs
import ssl
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kwsd.config import Config
from kwsd.errors import ConfigError, SocketError
from kwsd.service import systemd

_MIN_TOKEN_BYTES = 16
_HANDSHAKE_SECONDS = 5.0


@dataclass
class Credentials:
    """The token and the certificate of the TCP addresses. A reload replaces them; each check uses the present ones.

    Attributes:
        token: a client must send it first; None if none is needed.
        tls: has the certificate; None for plain text.
        n_changes: how often the token has changed.
    """

    token: bytes | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    n_changes: int = 0

    @classmethod
    def read(cls, config: Config) -> "Credentials":
        """Read the configured token and certificate.

        Raises:
            SocketError: one of them cannot be used.
        """
        token = _read_token(config.token_file) if config.token_file else None
        return cls(token, _read_certificate(config) if config.tls_certificate else None)

    def replace(self, fresh: "Credentials") -> None:
        """Use the token and the certificate of `fresh` from now on."""
        self.n_changes += fresh.token != self.token
        self.token, self.tls = fresh.token, fresh.tls


class Handshake(asyncio.Protocol):
    """A TCP client until it has finished its TLS handshake.

    Args:
        make: makes the protocol that serves it then. Data may reach that one before `connection_made`.
        credentials: have a certificate.
        begin: called first; returns whether the client may begin.
        end: called once the handshake is over, well or not.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.Protocol],
        credentials: Credentials,
        begin: Callable[["Handshake"], bool],
        end: Callable[["Handshake"], None],
    ) -> None:
        self._make, self._tls, self._begin, self._end = make, credentials.tls, begin, end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()  # what the client sends belongs to the handshake
        self.transport = transport
        if self._begin(self):
            self._task = asyncio.get_running_loop().create_task(self._shake_hands())
        else:
            transport.abort()

    async def _shake_hands(self) -> None:
        assert self._tls
        connection = self._make()
        options: dict[str, Any] = {"server_side": True, "ssl_handshake_timeout": _HANDSHAKE_SECONDS}
        try:
            secure = await asyncio.get_running_loop().start_tls(self.transport, connection, self._tls, **options)
        except OSError:  # the client is too slow, or does not speak TLS
            self.transport.abort()
            return
        finally:
            self._end(self)
        if secure and not secure.is_closing():
            connection.connection_made(secure)

    def give_way(self) -> None:
        self.transport.abort()

    close = give_way


def refuse_unused_secrets(config: Config) -> None:
    """Refuse a token or certificate that no address uses.

    Raises:
        ConfigError: one is configured, but neither `tcp` nor `http`.
    """
    if (
        config.tcp is None
        and config.http is None
        and (config.token_file or config.tls_certificate)
        and not systemd.is_activated()
    ):
        raise ConfigError("tcp, http: missing; token_file and tls_certificate are only for them")


def _read_certificate(config: Config) -> ssl.SSLContext:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password makes an encrypted key an error; without one, OpenSSL would ask on the terminal.
        tls.load_cert_chain(config.tls_certificate or "", config.tls_key, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        names = f"{config.tls_certificate}, {config.tls_key}"
        raise SocketError(f"{names}: not a certificate and its key in PEM ({reason})") from None
    return tls


def _read_token(path: Path) -> bytes:
    token = read_secret(path, "the token")
    if len(token) < _MIN_TOKEN_BYTES:
        raise SocketError(f"{path}: too short for a token; make one: openssl rand -hex 32 > {path}")
    return token


def read_secret(path: Path, what: str) -> bytes:
    """The text in a file, which other users must not be able to read.

    Raises:
        SocketError: it cannot be read, is no text, or is not secret.
    """
    try:
        secret = path.read_bytes().removeprefix(codecs.BOM_UTF8).strip()
        is_public = path.stat().st_mode & stat.S_IROTH
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}; it must hold {what}") from None
    if is_public:
        raise SocketError(f"{path}: every user can read {what}; chmod o-r it")
    try:
        secret.decode()
    except ValueError:
        raise SocketError(f"{path}: not text; it must hold {what}") from None
    return secret
