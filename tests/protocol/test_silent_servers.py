"""Servers that do not greet: something else than kwsd, or a daemon that waits for TLS."""

import asyncio
import socket
import threading
import time
from contextlib import aclosing, suppress

import pytest

from kwsd.client import subscribe, subscribe_async
from kwsd.errors import SocketError


async def first_async(address, **options):
    async with aclosing(subscribe_async(address, **options)) as events:
        return await anext(events)


def first(how, address, **options):
    """The first event, by the synchronous or the asynchronous client."""
    return next(subscribe(address, **options)) if how == "sync" else asyncio.run(first_async(address, **options))


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_server_that_does_not_greet_is_an_error(tmp_path, monkeypatch, how):
    """A daemon that waits for TLS behaves like this."""
    monkeypatch.setattr("kwsd.client._GREETING_SECONDS", 0.2)
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with pytest.raises(SocketError, match=r"no greeting in 0\.2 s; .* --tls-ca"):
            first(how, path)


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_server_that_closes_without_a_greeting_is_an_error_and_gets_the_token_once(how):
    with ClosingServer() as server:
        with pytest.raises(SocketError, match=r"closed the connection without a greeting; .* --tls-ca"):
            first(how, server.address, token="correct horse")
        time.sleep(0.5)  # in which it would try again
    assert [b"correct horse" in said for said in server.told] == [True]


class ClosingServer:
    """Reads a line and closes, as a server of another protocol does."""

    def __enter__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self.told = []
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def _serve(self):
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self.told.append(connection.recv(4096))

    def __exit__(self, *exception):
        self._listener.close()
