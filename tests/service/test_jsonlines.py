"""Connections of subscribers: slow ones, half-closed ones, wrong tokens, unfinished handshakes."""

import asyncio
import json
import logging
import socket
import ssl
import time
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path

import pytest

from kwsd.config import Config
from kwsd.protocol.events import Error, Goodbye, Hello, Lagged, Overrun, Position, parse_event
from kwsd.service import jsonlines
from kwsd.service.bus import Bus
from kwsd.service.credentials import Credentials
from kwsd.service.endpoints import Endpoint, bind_tcp, bind_unix
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
    try:
        yield bus, server
    finally:
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
    return Endpoint(bind_tcp("127.0.0.1:0"), Credentials(TOKEN))


@pytest.fixture
def tls():
    config = Config(tls_certificate=TLS / "certificate.pem", tls_key=TLS / "key.pem")
    return Endpoint(bind_tcp("127.0.0.1:0"), Credentials.read(config))


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
@pytest.mark.parametrize("request_line", [b"", b'{"type":"subscribe","streams":["hall"]}'])
def test_a_subscriber_that_sends_no_more_still_gets_events_until_it_closes(kind, request_line, request, monkeypatch):
    monkeypatch.setattr(jsonlines, "_LOOK_SECONDS", 0.1)
    endpoint = request.getfixturevalue(kind)
    endpoint.credentials.token = None

    async def scenario():
        async with serving(endpoint) as (bus, server):
            reader, writer = await connected(endpoint)
            writer.write(request_line)
            writer.write_eof()
            assert isinstance(parse_event(await reader.readline()), Hello)
            await asyncio.sleep(5 * jsonlines._LOOK_SECONDS)
            publish(bus, 3)
            numbers = []
            while len(numbers) < 3:
                event = parse_event(await reader.readline())
                numbers += [event.seq] if isinstance(event, Overrun) else []
            assert numbers == [0, 1, 2]
            writer.close()
            if kind == "tcp":  # tells that it is closed only in answer to a write
                publish(bus, 1)
            await until(lambda: not server.connections)

    asyncio.run(scenario())


def test_the_answer_to_a_wrong_token_takes_longer_each_time_and_leaves_a_log_line(tcp, caplog):
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
            for n in range(5):
                assert await answer(f"guess {n}") == Error(reason="wrong token", retryable=False)
            assert loop.time() - began >= 0.05 + 0.1 + 0.2 + 0.4 + 0.8
            await hurry(20)
            began = loop.time()
            assert isinstance(await answer(TOKEN.decode()), Hello)  # the address waits, but never for long
            assert loop.time() - began < 4

    async def hurry(n):
        """Guess on many connections, and end each before its answer."""
        for number in range(n):
            _, writer = await connected(tcp)
            writer.write(json.dumps({"type": "authenticate", "token": f"in a hurry {number}"}).encode() + b"\n")
            await asyncio.sleep(0.02)
            writer.close()

    with caplog.at_level(logging.WARNING, "kwsd"):
        asyncio.run(scenario())
    assert "127.0.0.1: wrong token (attempt 1); the answer waits for 0.05 s" in caplog.text
    assert len(caplog.records) == 7  # of twenty hurried guesses one counts at once, and one after the wait


@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("n_failures", [0, 3])
def test_a_client_may_end_its_side_after_its_token(tcp, end, n_failures):
    async def scenario():
        async with serving(tcp) as (bus, server):
            for n in range(n_failures):
                server.penalties.fail("127.0.0.1", time.monotonic() + n)
            reader, writer = await connected(tcp)
            writer.write(json.dumps({"type": "authenticate", "token": TOKEN.decode()}).encode() + end)
            writer.write_eof()
            assert isinstance(parse_event(await asyncio.wait_for(reader.readline(), 10)), Hello)
            publish(bus, 1)
            event = parse_event(await asyncio.wait_for(reader.readline(), 5))
            if isinstance(event, Position):
                event = parse_event(await asyncio.wait_for(reader.readline(), 5))
            assert isinstance(event, Overrun)
            writer.close()

    asyncio.run(scenario())


def test_a_client_that_is_late_with_its_token_may_try_again(tcp, monkeypatch):
    monkeypatch.setattr(jsonlines, "_LINE_SECONDS", 0.2)

    async def scenario():
        async with serving(tcp):
            reader, writer = await connected(tcp)
            answer = parse_event(await reader.readline())
            writer.close()
        return answer

    assert asyncio.run(scenario()) == Error(reason="no token within 0.2 s", retryable=True)


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
                await until(lambda: len(server.newcomers) == jsonlines._MOST_NEWCOMERS)
                reader, writer = await connected(tls, ssl=trust, server_hostname="localhost")
                assert isinstance(parse_event(await reader.readline()), Hello)
                writer.close()
                loop = asyncio.get_running_loop()
                assert await loop.sock_recv(silent[0], 100) == b""  # the oldest were given up
                await until(lambda: not server.newcomers)  # the others, after their time

    asyncio.run(scenario())


def test_clients_without_a_token_are_bounded_and_delay_no_working_client(tls):
    trust = ssl.create_default_context(cafile=TLS / "certificate.pem")
    tls.credentials.token = TOKEN

    async def scenario():
        async with serving(tls) as (_, server):
            silent = [await connected(tls, ssl=trust, server_hostname="localhost") for _ in range(80)]
            assert len(server.newcomers) == len(server.connections) == jsonlines._MOST_NEWCOMERS
            reader, writer = await connected(tls, ssl=trust, server_hostname="localhost")
            writer.write(json.dumps({"type": "authenticate", "token": TOKEN.decode()}).encode() + b"\n")
            assert isinstance(parse_event(await reader.readline()), Hello)
            refusal = parse_event(await silent[0][0].readline())
            assert refusal.retryable
            assert "show no token" in refusal.reason
            for _, one in silent:  # a wrong token does not keep a connection that has given way
                one.write(b"wrong\n")
            await asyncio.sleep(1.5)
            assert len(server.connections) < jsonlines._MOST_NEWCOMERS
            for _, one in [*silent, (reader, writer)]:
                one.close()

    asyncio.run(scenario())


def test_the_busiest_address_gives_up_its_handshakes_first(tls, monkeypatch, caplog):
    monkeypatch.setattr(jsonlines, "_MOST_NEWCOMERS", 4)

    async def scenario():
        address = tls.listener.getsockname()[:2]
        async with serving(tls) as (_, server):
            with ExitStack() as stack:

                def connect(host):
                    one = stack.enter_context(socket.create_connection(address, source_address=(host, 0)))
                    one.setblocking(False)
                    return one

                quiet = connect("127.0.0.2")
                await until(lambda: len(server.newcomers) == 1)
                busy = [connect("127.0.0.3") for _ in range(8)]
                loop = asyncio.get_running_loop()
                for one in busy[:5]:
                    assert await asyncio.wait_for(loop.sock_recv(one, 100), 5) == b""  # given up
                hosts = [one.transport.get_extra_info("peername")[0] for one in server.newcomers]
                assert sorted(hosts) == ["127.0.0.2"] + 3 * ["127.0.0.3"]
                with pytest.raises(BlockingIOError):
                    quiet.recv(100)  # still waited for

    asyncio.run(scenario())
    assert caplog.text.count("127.0.0.3: too many TLS clients show no token; the oldest give way") == 1
