"""Connections of subscribers: slow ones, half-closed ones, wrong tokens, unfinished handshakes."""

import asyncio
import json
import logging
import socket
import ssl
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from kwsd.config import Config
from kwsd.protocol.events import Error, Goodbye, Hello, Lagged, Overrun, parse_event
from kwsd.service import jsonlines
from kwsd.service.bus import Bus
from kwsd.service.endpoints import Endpoint, bind_tcp, bind_unix, tcp_secrets
from kwsd.service.jsonlines import JsonLines

TLS = Path(__file__).parent / "tls"
TOKEN = b"correct horse battery staple"
GREETING = Hello(
    protocol=1, boot_id="", next_seq=0, streams=[], labels=[], model="ds_tcn", provider="CPUExecutionProvider"
)


@asynccontextmanager
async def serving(endpoint):
    """Serve a bus at an endpoint, in this process."""
    bus = Bus()
    server = JsonLines([endpoint], bus, lambda: GREETING)
    await server.start()
    yield bus, server
    await server.stop()


def publish(bus, n):
    for _ in range(n):
        bus.publish(Overrun(stream="hall", lost_seconds=0.1))


async def connected(endpoint, **options):
    name = endpoint.listener.getsockname()
    if isinstance(name, str):
        return await asyncio.open_unix_connection(name)
    return await asyncio.open_connection(*name[:2], **options)


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def unix(tmp_path):
    return Endpoint(bind_unix(tmp_path / "k.sock", Config()), removed=tmp_path / "k.sock")


@pytest.fixture
def tcp():
    return Endpoint(bind_tcp("127.0.0.1:0"), token=TOKEN)


@pytest.fixture
def tls():
    _, context = tcp_secrets(Config(tls_certificate=TLS / "certificate.pem", tls_key=TLS / "key.pem"))
    return Endpoint(bind_tcp("127.0.0.1:0"), tls=context)


def test_a_slow_subscriber_learns_what_it_lost_and_delays_no_other(unix):
    """More events than its buffers and its queue hold."""

    async def scenario():
        async with serving(unix) as (bus, server):
            with closing(socket.socket(socket.AF_UNIX)) as late:
                late.connect(str(unix.removed))
                quick, quick_end = await connected(unix)
                await until(lambda: len(server.connections) == 2)
                told = [parse_event(await quick.readline())]
                for _ in range(100):
                    publish(bus, 200)
                    told += [parse_event(await quick.readline()) for _ in range(200)]
                assert [event.seq for event in told[1:]] == list(range(20_000))
                quick_end.close()
                bus.publish(Goodbye(reason="the end", heard_seconds=0.0))
                stopping = asyncio.create_task(server.stop())
                late.setblocking(False)
                data, loop = b"", asyncio.get_running_loop()
                while part := await loop.sock_recv(late, 2**20):
                    data += part
                await stopping
        return [parse_event(line) for line in data.splitlines()]

    _, *events = asyncio.run(scenario())
    [lagged] = [event for event in events if isinstance(event, Lagged)]
    numbers = [event.seq for event in events if not isinstance(event, Lagged)]
    assert numbers == sorted(set(numbers))
    assert lagged.n_lost == 20_001 - len(numbers) > 0
    assert isinstance(events[-1], Goodbye)


@pytest.mark.parametrize("kind", ["unix", "tcp"])
@pytest.mark.parametrize("request_line", [b"", b'{"type":"subscribe","streams":["hall"]}\n'])
def test_a_subscriber_that_sends_no_more_still_gets_events_until_it_closes(kind, request_line, request):
    endpoint = request.getfixturevalue(kind)
    endpoint.token = None

    async def scenario():
        async with serving(endpoint) as (bus, server):
            reader, writer = await connected(endpoint)
            writer.write(request_line)
            writer.write_eof()
            assert isinstance(parse_event(await reader.readline()), Hello)
            await asyncio.sleep(2.5 * jsonlines._LOOK_SECONDS)
            publish(bus, 3)
            numbers = []
            while len(numbers) < 3:
                event = parse_event(await reader.readline())
                numbers += [event.seq] if isinstance(event, Overrun) else []
            assert numbers == [0, 1, 2]
            writer.close()
            while server.connections:  # over TCP, the next event shows that it has closed
                publish(bus, 1)
                await asyncio.sleep(0.1)

    asyncio.run(scenario())


def test_wrong_tokens_delay_the_next_answer_and_leave_a_log_line(tcp, caplog):
    async def answer(token):
        reader, writer = await connected(tcp)
        writer.write(json.dumps({"type": "authenticate", "token": token}).encode() + b"\n")
        line = await reader.readline()
        writer.close()
        return parse_event(line)

    async def scenario():
        loop = asyncio.get_running_loop()
        async with serving(tcp):
            began = loop.time()
            times = []
            for n in range(5):
                assert await answer(f"guess {n}") == Error(reason="wrong token", retryable=False)
                times.append(loop.time() - began)
            assert times == pytest.approx([0, 0.05, 0.15, 0.35, 0.75], abs=0.2)
            at_once = [answer(f"at once {n}") for n in range(2)]
            assert isinstance((await asyncio.gather(*at_once, answer(TOKEN.decode())))[-1], Hello)

    with caplog.at_level(logging.WARNING, "kwsd"):
        asyncio.run(scenario())
    assert "127.0.0.1: wrong token (attempt 1); this address now waits for 0.1 s" in caplog.text
    assert len(caplog.records) <= 7


def test_silent_tls_connections_are_bounded_and_delay_no_working_client(tls, monkeypatch):
    monkeypatch.setattr(jsonlines, "_LINE_SECONDS", 2.0)
    trust = ssl.create_default_context(cafile=TLS / "certificate.pem")

    async def scenario():
        async with serving(tls) as (_, server):
            with ExitStack() as stack:
                silent = []
                for _ in range(300):
                    silent.append(stack.enter_context(socket.create_connection(tls.listener.getsockname()[:2])))
                    silent[-1].setblocking(False)
                await until(lambda: len(server._handshakes) == jsonlines._MOST_HANDSHAKES)
                reader, writer = await connected(tls, ssl=trust, server_hostname="localhost")
                assert isinstance(parse_event(await reader.readline()), Hello)
                writer.close()
                loop = asyncio.get_running_loop()
                assert await loop.sock_recv(silent[0], 100) == b""  # the oldest were given up
                await until(lambda: not server._handshakes)  # the others, after their time

    asyncio.run(scenario())
