"""Wyoming, with the clients of its own package."""

import asyncio
import json
import socket
import struct
import time
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
import pytest
import yaml
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.ping import Ping, Pong
from wyoming.wake import Detect, Detection, NotDetected
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent
from kwsd.service.outputs.announce import Announcement
from support import ends_well, free_port, listens

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture
def service(start_daemon, tmp_path):
    """A daemon that serves Wyoming; returns the port, the daemon and the path of its socket."""
    port, config = free_port(), tmp_path / "kwsd.yaml"
    keys = {"wyoming": f"tcp://127.0.0.1:{port}", "source": "network", "audio": str(tmp_path / "audio.sock")}
    config.write_text(yaml.safe_dump(keys))
    daemon, path = start_daemon("--config", config)
    listens(port)
    return port, daemon, path


@asynccontextmanager
async def connected(port):
    async with asyncio.timeout(30), AsyncTcpClient("127.0.0.1", port) as client:
        yield client


async def say(client, samples, *, rate=16000, width=2, start_ms=0):
    """Send audio as a satellite does: start, chunks of 64 ms, stop."""
    audio = np.round(samples * (2 ** (8 * width - 1) - 1)).astype(f"<i{width}").tobytes()
    await client.write_event(AudioStart(rate, width, 1, start_ms).event())
    for at in range(0, len(audio), 1024 * width):
        await client.write_event(AudioChunk(rate, width, 1, audio[at : at + 1024 * width]).event())
    await client.write_event(AudioStop().event())


async def answers(client, n):
    return [await client.read_event() for _ in range(n)]


async def test_describe_lists_all_words_and_costs_no_stream(service):
    port, _, path = service
    async with connected(port) as client:
        await client.write_event(Describe().event())
        info = Info.from_event(await client.read_event())
        await client.write_event(Ping(text="hello").event())
        assert Pong.from_event(await client.read_event()).text == "hello"
    [program] = info.wake
    assert program.installed
    assert {"stop", "yes"} <= {model.name for model in program.models}
    assert all(model.phrase == model.name for model in program.models)
    assert next(subscribe(path)).next_seq == 0  # no stream came up


async def test_detections_are_timed_on_the_clients_clock(service, demo, truth):
    port, _, _ = service
    async with connected(port) as client:
        await say(client, demo[: 8 * 16000], start_ms=1_000_000)
        found = [Detection.from_event(event) for event in await answers(client, 3)]
    assert [one.name for one in found] == ["down", "on", "stop"]
    for one, word in zip(found, [word for word in truth if word["is_keyword"]], strict=False):
        assert 0 <= one.timestamp - 1_000_000 - 1000 * word["end_seconds"] < 700


async def test_only_the_words_that_were_asked_for(service, demo):
    port, _, _ = service
    async with connected(port) as client:
        await client.write_event(Detect(names=["stop", "unknown word"]).event())
        await say(client, demo[: 8 * 16000])
        assert Detection.from_event(await client.read_event()).name == "stop"
        await say(client, demo[: 4 * 16000])  # the same connection once more; "down" is in it
        assert NotDetected.is_type((await client.read_event()).type)


async def test_other_rates_and_widths_and_a_chunk_without_a_start(service, demo):
    port, _, _ = service
    async with connected(port) as client:
        await say(client, np.repeat(demo[: 4 * 16000], 3), rate=48000, width=4)
        assert Detection.from_event(await client.read_event()).name == "down"
    async with connected(port) as client:
        audio = np.round(demo[: 4 * 16000] * 32767).astype("<i2").tobytes()
        await client.write_event(AudioChunk(16000, 2, 1, audio).event())
        await client.write_event(AudioStop().event())
        assert Detection.from_event(await client.read_event()).name == "down"


async def test_each_connection_is_a_stream_for_other_subscribers_too(service, demo):
    port, _, path = service
    events = subscribe(path)
    next(events)
    async with connected(port) as one, connected(port) as other:
        await asyncio.gather(say(one, demo[: 4 * 16000]), say(other, demo[: 4 * 16000]))
        await answers(one, 1)
        await answers(other, 1)
    heard = [event.stream for event in (next(events) for _ in range(4)) if isinstance(event, DetectionEvent)]
    while len(heard) < 2:
        event = await asyncio.to_thread(next, events)
        heard += [event.stream] if isinstance(event, DetectionEvent) else []
    assert sorted(heard) == ["wyoming/127.0.0.1/1", "wyoming/127.0.0.1/2"]


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"hello\n", "not an event of Wyoming"),
        (b"[]\n", "not an event of Wyoming"),
        (b'{"type":"audio-chunk","payload_length":1000000000}\n', "not an event of Wyoming"),
        (b'{"type":"audio-chunk","data_length":-5}\n', "audio-chunk: a key is missing or wrong"),
        (b'{"type":"audio-start","data":{"rate":16000,"width":3,"channels":1}}\n', "audio-start: encoding: 3"),
        (b'{"type":"audio-start","data":{"rate":"fast","width":2,"channels":1}}\n', "audio-start: rate_hz: 'fast'"),
        (b'{"type":"detect","data":{"names":["computer"]}}\n', "no such word: computer; the words are yes"),
        (b'{"type":"detect","data":{"names":["\\ud800"]}}\n', "no such word: \\ud800; the words are yes"),
        (b'{"type":"ping","data":' + b"[" * 60_000 + b"\n", "not an event of Wyoming"),
        (
            b'{"type":"audio-start","data":{"rate":16000,"width":2,"channels":1,"timestamp":"x"}}\n',
            "audio-start: timestamp: 'x'",
        ),
        (b"x" * 100_000, "not an event of Wyoming"),
    ],
    ids=[
        "text",
        "a list",
        "a gigabyte",
        "no data",
        "width",
        "rate",
        "word",
        "half a letter",
        "nested",
        "time",
        "endless",
    ],
)
def test_what_is_wrong_is_answered_by_one_error(service, sent, reason):
    port, daemon, _ = service
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        with connection.makefile("rb") as lines:
            header = json.loads(lines.readline())
            text = json.loads(lines.read(header["data_length"]))["text"]
    assert header["type"] == "error"
    assert text.startswith(reason)
    ends_well(daemon)


async def test_hundreds_of_connections_leave_the_service_usable(service, demo):
    port, daemon, _ = service
    idle = []
    for _ in range(300):
        idle.append(socket.create_connection(("127.0.0.1", port), timeout=10))
    async with connected(port) as client:
        await say(client, demo[: 4 * 16000])
        assert Detection.from_event(await client.read_event()).name == "down"
    for connection in idle:
        connection.close()
    ends_well(daemon)


async def test_the_service_is_announced_on_the_network():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        announcement = Announcement()
        await announcement.start(listener)
        async with AsyncZeroconf(interfaces=["127.0.0.1"]) as other:
            browser = AsyncServiceBrowser(other.zeroconf, "_wyoming._tcp.local.", handlers=[found := Found()])
            await asyncio.wait_for(found.event.wait(), 10)
            info = AsyncServiceInfo("_wyoming._tcp.local.", found.name)
            assert await info.async_request(other.zeroconf, 5000)
            await browser.async_cancel()
        await announcement.stop()
        assert info.port == listener.getsockname()[1]
        assert info.parsed_addresses() == ["127.0.0.1"]


class Found:
    """Waits for a service of kwsd."""

    def __init__(self):
        self.event, self.name = asyncio.Event(), ""

    def __call__(self, zeroconf, service_type, name, state_change):
        if name.startswith("kwsd on"):
            self.name = name
            self.event.set()


async def test_a_client_that_resets_its_connection_ends_only_its_stream(service, demo):
    port, daemon, _ = service
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        start = AudioStart(16000, 2, 1).event()
        connection.sendall(json.dumps({"type": start.type, "data": start.data}).encode() + b"\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    async with connected(port) as client:
        await say(client, demo[: 4 * 16000])
        assert Detection.from_event(await client.read_event()).name == "down"
    ends_well(daemon)


async def test_utterances_that_follow_at_once_are_answered_one_by_one(service):
    port, _, _ = service
    async with connected(port) as client:
        for _ in range(3):
            await say(client, np.zeros(24000))
        assert [NotDetected.is_type(event.type) for event in await answers(client, 3)] == [True] * 3


async def test_a_client_that_asks_and_never_reads_delays_no_other(service, demo):
    port, daemon, _ = service
    with socket.create_connection(("127.0.0.1", port)) as greedy:
        greedy.setblocking(False)
        for _ in range(100):
            try:
                greedy.send(b'{"type":"describe"}\n' * 3000)
            except BlockingIOError:
                break
        began = time.monotonic()
        async with connected(port) as client:
            await say(client, demo[: 4 * 16000])
            assert Detection.from_event(await client.read_event()).name == "down"
        assert time.monotonic() - began < 10
        ends_well(daemon)


async def test_names_are_free_again_after_an_utterance(service):
    port, _, path = service
    events = subscribe(path)
    next(events)
    async with connected(port) as client:
        for _ in range(5):
            await say(client, np.zeros(16000))
            await client.read_event()
    names = {(await asyncio.to_thread(next, events)).stream for _ in range(10)}
    assert names == {"wyoming/127.0.0.1/1"}


async def test_a_client_that_hangs_up_while_it_speaks_displaces_no_other(service):
    port, _, path = service
    events = subscribe(path)
    next(events)
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connected(port)) for _ in range(63)]
        async with connected(port) as speaking:  # the sixty-fourth; its place is free while it speaks
            await speaking.write_event(AudioStart(16000, 2, 1).event())
            assert (await asyncio.to_thread(next, events)).type == "source_up"
            idle.append(await stack.enter_async_context(connected(port)))
            await idle[-1].write_event(Ping().event())
            await idle[-1].read_event()
        assert (await asyncio.to_thread(next, events)).type == "source_down"
        for client in idle:
            await client.write_event(Ping().event())
            assert Pong.is_type((await client.read_event()).type)
