"""Programs send raw PCM: many streams in one daemon, each with the same detections as alone."""

import json
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from kwsd.client import subscribe
from kwsd.core.spotter import Spotter
from kwsd.protocol.events import DetectionEvent, Hello, SourceDown, SourceUp
from kwsd.sources.header import Header
from support import connect, kwsd, send_audio, serving


@pytest.fixture
def start_network(start_daemon, tmp_path):
    """Start a daemon with two streams and only its audio socket as source; gives it and both socket paths."""

    def start(*arguments):
        audio = tmp_path / "audio.sock"
        config = tmp_path / "kwsd.yaml"
        config.write_text(
            f"audio: {audio}\nstreams:\n  strict: {{source: network, threshold: 1}}\n"
            "  second: {source: network, channel: 2}\n"
        )
        daemon, events = start_daemon("--config", config, *arguments)
        serving(audio, daemon)
        return daemon, audio, events

    return start


def test_the_channel_of_the_source_does_not_apply_to_other_streams(start_daemon, tmp_path, write_wav, demo):
    stereo = write_wav("stereo.wav", np.stack([demo[:80000], demo[:80000]], axis=1))
    config, audio = tmp_path / "kwsd.yaml", tmp_path / "audio.sock"
    config.write_text(f"source: {stereo}\nchannel: 2\naudio: {audio}\n")
    daemon, path = start_daemon("--config", config)
    serving(audio, daemon)
    events = subscribe(path)
    send(audio, np.zeros(1600), stream="hall")  # one channel
    assert next(event for event in events if isinstance(event, SourceUp) and event.stream == "hall")
    daemon.terminate()


def send(path, samples, **header):
    """Send float samples and close the connection."""
    send_audio(path, (samples * 32768).astype("<i2"), **header).close()


def collect(events, names):
    """Collect detections by stream until all these streams are down."""
    heard, left = {name: [] for name in names}, set(names)
    for event in events:
        if isinstance(event, DetectionEvent):
            heard[event.stream].append((event.label, event.end_seconds, event.score))
        elif isinstance(event, SourceDown):
            assert (event.reason, event.retry_seconds) == ("ended", None)
            left.discard(event.stream)
            if not left:
                return heard
    raise AssertionError("the daemon ended")


def alone(model, samples):
    spotter = Spotter(model, 16000)
    heard = spotter.push(samples) + spotter.flush()
    return [(one.label, round(one.end_seconds, 3), round(one.score, 4)) for one in heard]


def test_each_of_many_streams_gets_the_same_detections_as_alone(start_network, model, demo):
    daemon, audio, path = start_network()
    streams = {f"room{n}": np.roll(demo, n * 24000)[: 8 * 16000] for n in range(12)}
    events = subscribe(path)
    assert isinstance(next(events), Hello)
    senders = [
        threading.Thread(target=send, args=(audio, samples), kwargs={"stream": name, "live": False})
        for name, samples in streams.items()
    ]
    for sender in senders:
        sender.start()
    heard = collect(events, streams)
    for sender in senders:
        sender.join()
    assert sum(map(len, heard.values())) > 12
    assert heard == {name: alone(model, samples) for name, samples in streams.items()}
    daemon.terminate()
    assert daemon.wait(10) == 0
    assert not audio.exists()


def test_each_stream_has_its_own_threshold_and_channel(start_network, model, demo):
    _, audio, path = start_network()
    events = subscribe(path)
    assert next(events).streams == ["strict", "second"]
    few = demo[: 6 * 16000]
    stereo = np.stack([np.zeros_like(few), few], axis=1).ravel()
    send(audio, few, stream="strict", live=False)
    assert collect(events, ["strict"]) == {"strict": []}
    send(audio, stereo, stream="second", channels=2, live=False)
    [heard] = collect(events, ["second"]).values()
    assert [label for label, *_ in heard] == [label for label, *_ in alone(model, few)]
    assert heard


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"hello\n", "first line must be JSON"),
        (b"[1]\n", "the data: [1] is not keys and values"),
        (b'{"rate_hz":16000}\n', "stream: missing"),
        (b'{"stream":"a","rate":1}\n', "rate: unknown key; did you mean rate_hz?"),
        (b'{"stream":"a","rate_hz":"x"}\n', "rate_hz: 'x' is not a whole number"),
        (b'{"stream":"a\\u0000b"}\n', "stream: has characters that cannot be printed"),
        (b'{"stream":"\\ud800"}\n', "stream: has characters that cannot be printed"),
        (b'{"stream":"a","rate_hz":5}\n', "rate_hz: 5 is not between 4000"),
        (b'{"stream":"a","encoding":"mp3"}\n', "encoding: 'mp3' is not one of s16le"),
        (b'{"stream":"second"}\n', "channels: 1, but channel 2 is configured"),
        (b"x" * 5000, "first line must be JSON"),
        (b"[" * 4000 + b"\n", "first line must be JSON"),
    ],
)
def test_an_invalid_header_gets_a_one_line_error_and_the_daemon_continues(start_network, line, reason):
    daemon, audio, _ = start_network()
    with connect(audio) as connection:
        connection.sendall(line)
        answer = json.loads(connection.makefile().readline())
        assert answer["type"] == "error"
        assert reason in answer["reason"]
        assert connection.recv(1) == b""
    assert daemon.poll() is None


def test_a_stream_name_has_one_connection_at_a_time_and_can_be_reused(start_network):
    _, audio, path = start_network()
    events = subscribe(path)
    next(events)
    first = connect(audio)
    first.sendall(b'{"stream":"a"}\n')
    assert isinstance(next(events), SourceUp)
    with connect(audio) as second:
        second.sendall(b'{"stream":"a"}\n')
        assert "'a' is already connected" in second.makefile().readline()
    first.close()
    assert isinstance(next(events), SourceDown)
    send(audio, np.zeros(1600), stream="a", rate_hz=48000)
    assert next(events).rate_hz == 48000


def test_only_local_programs_can_send_audio(tmp_path):
    result = kwsd("run", "--source", "network", "--audio", "0.0.0.0:7000", "--socket", tmp_path / "s")
    assert result.returncode == 2
    assert result.stderr == "kwsd: audio: 0.0.0.0:7000 is open to other machines; use 127.0.0.1:PORT\n"


def test_a_header_needs_only_a_stream_name():
    assert Header.parse(b'{"stream":"a"}') == Header(stream="a", rate_hz=16000, encoding="s16le", channels=1, live=True)


@pytest.mark.parametrize("sends", ["nothing", "zeros"])
def test_a_silent_live_sender_is_ended_and_its_name_is_free(start_daemon, tmp_path, sends):
    config, audio = tmp_path / "kwsd.yaml", tmp_path / "audio.sock"
    config.write_text(f"source: network\naudio: {audio}\nsilent_seconds: 1\n")
    daemon, path = start_daemon("--config", config)
    serving(audio, daemon)
    events = subscribe(path)
    assert isinstance(next(events), Hello)
    with send_audio(audio, np.ones(1600, "<i2"), stream="hall") as sender:
        assert isinstance(next(events), SourceUp)
        with suppress(OSError):
            for _ in range(30 if sends == "zeros" else 0):
                sender.sendall(bytes(3200))
                time.sleep(0.1)
        down = next(events)
        assert (down.stream, down.reason) == ("hall", "no sound for 1 s")
        with suppress(ConnectionResetError):  # the zeros that it had not read yet
            assert b"no sound for 1 s; connect again when there is some" in sender.recv(4096)
    with send_audio(audio, np.ones(1600, "<i2"), stream="hall"):
        assert isinstance(next(events), SourceUp)
