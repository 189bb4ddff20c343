"""A subscriber stays subscribed: it gets every event exactly once, or a gap event for lost ones."""

import asyncio
import errno
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import aclosing, suppress

import pytest

from kwsd.client import _Session, subscribe, subscribe_async
from kwsd.errors import SocketError
from kwsd.protocol.address import ServerAddress
from kwsd.protocol.events import DetectionEvent, Gap, Goodbye, Hello, Published, SourceDown, SourceUp
from kwsd.protocol.subscription import Since, Subscription


@pytest.fixture
def serve(tmp_path):
    """Start a daemon that waits for audio on a socket; kills all daemons after the test."""
    daemons = []

    def start():
        events, audio = tmp_path / "kwsd.sock", tmp_path / "audio.sock"
        command = [sys.executable, "-m", "kwsd", "run", "--source", "network"]
        daemons.append(subprocess.Popen([*command, "--audio", audio, "--socket", events], stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while not _accepts(audio) and time.monotonic() < deadline:
            time.sleep(0.02)
        return daemons[-1], events, audio

    yield start
    for daemon in daemons:
        daemon.kill()
        daemon.wait()


def _accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def speak(audio, samples, stream="a"):
    with socket.socket(socket.AF_UNIX) as program:
        program.connect(str(audio))
        program.sendall(json.dumps({"stream": stream, "live": False}).encode() + b"\n")
        program.sendall((samples * 32768).astype("<i2").tobytes())


def until_down(events, stream="a"):
    """Events up to and including the end of a stream."""
    told = []
    for event in events:
        told.append(event)
        if isinstance(event, SourceDown) and event.stream == stream:
            return told
    raise AssertionError("the subscription ended")


def test_missed_events_arrive_exactly_once(serve, demo):
    _, path, audio = serve()
    first = subscribe(path)
    assert isinstance(next(first), Hello)
    speak(audio, demo[: 4 * 16000])
    told = until_down(first)
    last = told[-1]
    first.close()
    speak(audio, demo[: 6 * 16000])
    speak(audio, demo[: 4 * 16000], "b")
    again = subscribe(path, since=Since(last.boot_id, last.seq))
    assert isinstance(next(again), Hello)
    missed = until_down(again, "b")
    assert [event.seq for event in missed] == list(range(last.seq + 1, last.seq + 1 + len(missed)))
    assert len([event for event in missed if isinstance(event, DetectionEvent)]) >= 2


def test_after_kill_9_the_subscriber_gets_a_gap_and_the_new_history(serve, demo):
    daemon, path, audio = serve()
    events = subscribe(path)
    hello = next(events)
    speak(audio, demo[: 4 * 16000])
    seen = until_down(events)
    daemon.send_signal(signal.SIGKILL)
    daemon.wait()
    _, _, audio = serve()
    speak(audio, demo[: 4 * 16000])
    told = until_down(events)
    assert isinstance(told[0], Hello)
    assert told[0].boot_id != hello.boot_id
    assert told[1] == Gap(reason="the daemon was restarted", n_lost=None)
    assert isinstance(told[2], SourceUp)
    assert [event.seq for event in told[2:]] == list(range(len(told) - 2))
    keys = [(event.boot_id, event.seq) for event in (*seen, *told) if isinstance(event, Published)]
    assert len(keys) == len(set(keys))


def test_the_filter_also_holds_after_a_restart(serve, demo):
    daemon, path, audio = serve()
    events = subscribe(path, labels=["stop"], streams=["a"])
    assert isinstance(next(events), Hello)
    for _ in range(2):
        speak(audio, demo[: 9 * 16000], "b")
        speak(audio, demo[: 9 * 16000])
        told = [event for event in until_down(events) if isinstance(event, DetectionEvent)]
        assert [(event.label, event.stream) for event in told] == [("stop", "a")]
        daemon.terminate()
        daemon.wait()
        assert isinstance(next(event for event in events if not isinstance(event, SourceUp)), Goodbye)
        daemon, _, audio = serve()


def test_the_asynchronous_form_yields_the_same_events(serve, demo):
    daemon, path, audio = serve()

    async def scenario():
        events = subscribe_async(path)
        told = [await anext(events)]
        await asyncio.to_thread(speak, audio, demo[: 4 * 16000])
        async for event in events:
            told.append(event)
            if isinstance(event, SourceDown):
                break
        daemon.kill()
        daemon.wait()
        await asyncio.to_thread(serve)
        told += [await anext(events) for _ in range(2)]
        await events.aclose()
        return told

    told = asyncio.run(scenario())
    assert [type(event) for event in told if not isinstance(event, DetectionEvent)] == [
        *(Hello, SourceUp, SourceDown),
        *(Hello, Gap),
    ]
    assert any(isinstance(event, DetectionEvent) for event in told)


def test_without_a_daemon_the_first_connection_is_an_error(tmp_path):
    with pytest.raises(SocketError, match="no kwsd to subscribe to"):
        next(subscribe(tmp_path / "absent"))

    async def scenario():
        await anext(subscribe_async(tmp_path / "absent"))

    with pytest.raises(SocketError, match="no kwsd to subscribe to"):
        asyncio.run(scenario())


def test_listen_accepts_the_same_filters(serve, demo):
    daemon, path, audio = serve()
    speak(audio, demo[: 9 * 16000])
    boot_id = next(subscribe(path)).boot_id
    command = [sys.executable, "-m", "kwsd", "listen", "--socket", path, "--once", "--json", "--labels", "stop,yes"]
    with subprocess.Popen([*command, "--since", f"{boot_id}:0"], stdout=subprocess.PIPE, text=True) as listen:
        lines = [json.loads(listen.stdout.readline()) for _ in range(2)]
        with subprocess.Popen([*command[:-1], "stpo"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as strange:
            assert b"--labels: the daemon's model does not know stpo" in strange.stderr.readline()
            daemon.terminate()
        rest = listen.stdout.read()
    assert lines[0]["type"] == "hello"
    assert lines[1]["label"] == "stop"
    assert json.loads(rest.splitlines()[-1])["type"] == "goodbye"
    wrong = subprocess.run([*command, "--since", "x"], capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "'x' is not BOOT_ID:SEQ" in wrong.stderr


class FakeDaemon:
    """Sends its lines to one connection after another, and receives the first line of each."""

    def __init__(self, path, *connections):
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self.n_accepted, self.asked = 0, []
        self._thread = threading.Thread(target=self._run, args=(connections,), daemon=True)
        self._thread.start()

    def _run(self, connections):
        for said in connections:
            connection, _ = self._listener.accept()
            self.n_accepted += 1
            with connection, suppress(TimeoutError, ConnectionError):
                connection.sendall(said)
                connection.settimeout(0.3)
                self.asked.append(connection.recv(1000))
        self._listener.close()


HELLO = (
    b'{"type":"hello","protocol":1,"boot_id":"b","next_seq":5,"streams":[],"labels":["a"],"model":"m","provider":"p"}\n'
)
UP = b'{"type":"source_up","seq":5,"boot_id":"b","time":"t","stream":"s","rate_hz":16000}\n'
SUBSCRIBED = b'{"type":"subscribed","next_seq":5}\n'


def first_of(events, n):
    return [next(events) for _ in range(n)]


async def first_of_async(address, n, **options):
    async with aclosing(subscribe_async(address, **options)) as events:
        return [await anext(events) for _ in range(n)]


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_connection_that_breaks_inside_a_line_loses_no_event(tmp_path, how):
    """The daemon is killed in the middle of its first event; the client asks for that event again."""
    path = tmp_path / "s"
    daemon = FakeDaemon(path, HELLO + UP[:40], b"", HELLO + SUBSCRIBED + UP)
    told = first_of(subscribe(path), 3) if how == "sync" else asyncio.run(first_of_async(path, 3))
    assert [type(event) for event in told] == [Hello, Hello, SourceUp]
    daemon._thread.join(2)
    assert json.loads(daemon.asked[-1])["since"] == {"boot_id": "b", "seq": 4}


FULL = b'{"type":"error","reason":"1000 subscribers are connected, no more can be","retryable":true}\n'
WRONG = b'{"type":"error","reason":"wrong token","retryable":false}\n'


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_client_that_was_connected_retries_after_a_retryable_error(tmp_path, how):
    path = tmp_path / "s"
    FakeDaemon(path, HELLO + UP, FULL, HELLO + SUBSCRIBED)
    told = first_of(subscribe(path), 3) if how == "sync" else asyncio.run(first_of_async(path, 3))
    assert [type(event) for event in told] == [Hello, SourceUp, Hello]


@pytest.mark.parametrize(
    ("said", "reason"), [(FULL, "no more can be"), (WRONG, "wrong token"), (HELLO + WRONG, "wrong")]
)
@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_client_that_was_never_connected_gets_the_error(tmp_path, said, reason, how):
    path = tmp_path / "s"
    FakeDaemon(path, said)
    with pytest.raises(SocketError, match=reason):
        first_of(subscribe(path), 3) if how == "sync" else asyncio.run(first_of_async(path, 3))


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_line_without_an_end_is_an_error(tmp_path, how):
    path = tmp_path / "s"
    FakeDaemon(path, b"x" * 2**21)
    with pytest.raises(SocketError, match="a line without an end"):
        first_of(subscribe(path), 1) if how == "sync" else asyncio.run(first_of_async(path, 1))


def test_the_next_resume_begins_at_the_last_position(tmp_path):
    path = tmp_path / "s"
    later = b'{"type":"position","next_seq":300}\n'
    daemon = FakeDaemon(path, HELLO + UP + later, HELLO + SUBSCRIBED)
    assert [type(event) for event in first_of(subscribe(path), 3)] == [Hello, SourceUp, Hello]
    daemon._thread.join(2)
    assert json.loads(daemon.asked[-1])["since"] == {"boot_id": "b", "seq": 299}


def test_a_gap_is_told_once(tmp_path):
    path = tmp_path / "s"
    told = HELLO + b'{"type":"subscribed","next_seq":3}\n' + b'{"type":"gap","reason":"r","n_lost":2}\n'
    daemon = FakeDaemon(path, told, HELLO + SUBSCRIBED)
    events = subscribe(path, since=Since("earlier", 7))
    assert [type(event) for event in first_of(events, 3)] == [Hello, Gap, Hello]
    daemon._thread.join(2)
    assert json.loads(daemon.asked[-1])["since"] == {"boot_id": "b", "seq": 2}


def test_missing_permission_is_an_error_with_advice(tmp_path, monkeypatch):
    def connect(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("kwsd.protocol.address.ServerAddress._connect_unix", connect)
    with pytest.raises(SocketError, match=r"Permission denied\); become a member of the socket's group"):
        next(subscribe(tmp_path / "s"))


def test_a_client_that_is_always_disconnected_waits_longer_each_time(tmp_path):
    path = tmp_path / "s"
    daemon = FakeDaemon(path, HELLO, *[b""] * 1000)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(first_of_async(path, 2), 1.5))
    assert 2 <= daemon.n_accepted <= 5
    session = _Session(ServerAddress.at(path, None, None), Subscription())
    pauses = [session.pause() for _ in range(7)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1 < pauses[-1]


def test_a_daemon_with_another_protocol_version_is_refused(tmp_path):
    path = tmp_path / "s"
    FakeDaemon(path, HELLO.replace(b'"protocol":1', b'"protocol":2'))
    with pytest.raises(SocketError, match="speaks protocol 2, this kwsd 1; install the newer kwsd"):
        next(subscribe(path))
