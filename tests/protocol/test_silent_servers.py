"""Servers that do not greet: something else than kwsd, or a daemon that waits for TLS."""

import asyncio
import socket
import threading
from contextlib import aclosing, suppress

import pytest

from kwsd.client import subscribe, subscribe_async
from kwsd.errors import SocketError
from kwsd.protocol.events import Hello

HELLO = (
    b'{"type":"hello","protocol":1,"boot_id":"b","next_seq":0,"streams":[],"labels":[],"model":"m","provider":"p"}\n'
)


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
    expected = pytest.raises(SocketError, match=r"closed the connection without a greeting; .* --tls-ca")
    with ClosingServer() as server, expected:
        first(how, server.address, token="correct horse")
    assert [b"correct horse" in said for said in server.told] == [True]


def test_a_token_is_shown_three_times_to_a_server_that_greeted_before():
    with ClosingServer(HELLO) as server:
        events = subscribe(server.address, token="correct horse")
        assert isinstance(next(events), Hello)
        with pytest.raises(SocketError, match="closed the connection without a greeting"):
            next(events)
    assert [b"correct horse" in said for said in server.told] == [True] * 4


class ClosingServer:
    """Reads a line and closes, as a server of another protocol does; at first it gives these answers."""

    def __init__(self, *answers):
        self._answers = list(answers)

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
                    connection.sendall(self._answers.pop(0) if self._answers else b"")

    def __exit__(self, *exception):
        self._listener.close()
