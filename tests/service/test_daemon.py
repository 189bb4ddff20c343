"""The whole daemon as a process: real sockets, real signals, real subscribers."""

import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kwsd.client import subscribe
from kwsd.errors import SocketError
from kwsd.protocol.events import DetectionEvent, Error, Goodbye, Hello, SourceDown, SourceUp, parse_event
from support import DEMO, kwsd, serving


def connect(path):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


def detections(events):
    return [(e.label, e.end_seconds, e.score) for e in events if isinstance(e, DetectionEvent)]


def test_twenty_subscribers_get_the_same_detections_as_spot(start_daemon, tmp_path, few_seconds_wav):
    """Raw PCM is piped in only after all subscribers have connected, so that each gets every event."""
    daemon, path = start_daemon("--source", "-", stdin=subprocess.PIPE)
    heard = [[] for _ in range(20)]
    hello = threading.Barrier(21, timeout=20)

    def listen(events):
        for event in subscribe(path, reconnect=False):
            events.append(event)
            if isinstance(event, Hello):
                hello.wait()

    threads = [threading.Thread(target=listen, args=(events,)) for events in heard]
    for thread in threads:
        thread.start()
    hello.wait()
    samples, _ = soundfile.read(few_seconds_wav, dtype="int16")
    daemon.stdin.buffer.write(samples.tobytes())
    daemon.stdin.close()
    for thread in threads:
        thread.join(20)
    assert daemon.wait(10) == 0
    spotted = [parse_event(line) for line in kwsd("spot", "--json", few_seconds_wav).stdout.splitlines()]
    assert detections(spotted)
    for events in heard:
        assert isinstance(events[0], Hello)
        assert events[0].provider == "CPUExecutionProvider"
        assert detections(events) == detections(spotted)
        assert isinstance(events[-1], Goodbye)
        assert events[-1].heard_seconds == 3.6


def test_sigterm_says_goodbye_and_removes_the_socket(start_daemon):
    daemon, path = start_daemon("--source", DEMO)
    events = subscribe(path, reconnect=False)
    assert isinstance(next(events), Hello)
    started = time.monotonic()
    daemon.send_signal(signal.SIGTERM)
    last = list(events)[-1]
    assert isinstance(last, Goodbye)
    assert last.reason == "SIGTERM"
    assert daemon.wait(5) == 0
    assert time.monotonic() - started < 5
    assert not path.exists()
    assert "Traceback" not in daemon.stderr.read()


def test_nc_prints_the_events(start_daemon):
    if subprocess.run(["which", "nc"], capture_output=True).returncode:
        pytest.skip("nc is not installed")
    _, path = start_daemon("--source", DEMO)
    with subprocess.Popen(["nc", "-U", str(path)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as nc:
        hello = json.loads(nc.stdout.readline())
        nc.kill()
    assert hello["type"] == "hello"
    assert hello["labels"][:2] == ["yes", "no"]


INVALID = {
    b"garbage\n": "not a line of JSON",
    b"\xff\xfe\x00\n": "not a line of JSON",
    b'{"type":"party"}\n': "type: 'party' is not one of subscribe",
    b'{"type":"subscribe","labels":"stop"}\n': "labels: 'stop' is not a list",
    b"[1,2]\n": "no request",
    b"x" * 200_000: "longer than",
}


def test_an_invalid_line_gets_an_error_and_does_not_affect_other_subscribers(start_daemon):
    _, path = start_daemon("--source", DEMO)
    bystander = subscribe(path)
    next(bystander)
    for sent, reason in INVALID.items():
        with connect(path) as rude, rude.makefile("rb") as lines:
            with suppress(ConnectionError):  # the daemon may close while the client still sends
                rude.sendall(sent)
            answers = []
            with suppress(ConnectionError):
                answers += [parse_event(line) for line in iter(lines.readline, b"")]
        assert isinstance(answers[-1], Error)
        assert reason in answers[-1].reason
    assert any(isinstance(event, DetectionEvent) for event in bystander)


def test_a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not(start_daemon, tmp_path):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "kwsd.sock"))
    dead.close()  # the file stays, as after kill -9
    daemon, path = start_daemon("--source", DEMO)
    deadline = time.monotonic() + 10
    while True:
        try:
            assert isinstance(next(subscribe(path)), Hello)
            break
        except SocketError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    second = kwsd("run", "--source", DEMO, "--socket", path)
    assert second.returncode == 1
    assert "another kwsd is serving it" in second.stderr
    assert daemon.poll() is None
    assert oct(path.stat().st_mode & 0o777) == "0o660"


def test_a_wav_header_on_standard_input_is_refused(start_daemon):
    daemon, _ = start_daemon("--source", "-", stdin=subprocess.PIPE)
    daemon.stdin.buffer.write(DEMO.read_bytes()[:10000])
    daemon.stdin.close()
    assert daemon.wait(10) == 1
    assert "arecord -t raw" in daemon.stderr.read()


def test_silence_and_a_pause_on_standard_input_are_reported_once(start_daemon, tmp_path):
    config = tmp_path / "kwsd.yaml"
    config.write_text("source: '-'\nsilent_seconds: 2\n")
    daemon, path = start_daemon("--config", config, stdin=subprocess.PIPE)
    sound = np.random.default_rng(0).integers(-99, 99, 16000, np.int16).tobytes()
    events = subscribe(path, reconnect=False)
    assert isinstance(next(events), Hello)

    def send(data):
        daemon.stdin.buffer.write(data)
        daemon.stdin.buffer.flush()

    kinds = []
    for data in (sound, bytes(5 * 32000), sound, b""):  # the last is a pause
        send(data)
        kinds.append(next(event for event in events if isinstance(event, SourceUp | SourceDown)))
    assert [event.type for event in kinds] == ["source_up", "source_down", "source_up", "source_down"]
    assert kinds[1].reason == "standard input: delivers nothing but zeros; is it muted?"
    daemon.stdin.close()
    assert isinstance(list(events)[-1], Goodbye)


def test_sighup_reloads_thresholds_and_keeps_the_old_ones_on_an_error(start_daemon, tmp_path):
    """A pipe of raw PCM pauses the stream while the configuration is reloaded."""
    config = tmp_path / "kwsd.yaml"
    config.write_text("threshold: 0.999999")
    daemon, path = start_daemon("--config", config, "--source", "-", stdin=subprocess.PIPE)
    log = iter(daemon.stderr)
    word, _ = soundfile.read(DEMO, frames=3 * 16000, dtype="int16")

    def say_and_pause():  # more than the pipe holds, so the word is processed on return
        daemon.stdin.buffer.write(word.tobytes() + bytes(2 * 16000 * 5))
        daemon.stdin.buffer.flush()

    def reload(text, answer):
        config.write_text(text)
        daemon.send_signal(signal.SIGHUP)
        line = next(line for line in log if "reload:" in line)
        assert answer in line, line

    events = subscribe(path, reconnect=False)
    assert isinstance(next(events), Hello)
    say_and_pause()  # no score reaches that threshold
    reload("threshhold: 0.5", "threshhold: unknown key; did you mean threshold?; the old configuration stays")
    reload("model: absent.onnx", "absent.onnx: no such model file")
    reload("thresholds: {stpo: 0.5}", "thresholds.stpo: unknown key; did you mean stop?")
    reload("threshold: 0.6\nstream: other", "streams can change only with a restart")
    assert next(line for line in log if "reload: done" in line)
    say_and_pause()
    first = next(event for event in events if isinstance(event, DetectionEvent))
    assert first.end_seconds > 8.0  # from the second round: the sample clock was not reset
    daemon.stdin.close()
    assert isinstance(list(events)[-1], Goodbye)
    assert daemon.wait(5) == 0


@pytest.mark.slow
def test_memory_does_not_grow_in_ten_minutes_without_subscribers(start_daemon):
    """Feed audio as fast as possible. Resident memory at the end is about that after the first minute."""
    daemon, _ = start_daemon("--source", "-", stdin=subprocess.PIPE)
    samples, _ = soundfile.read(DEMO, dtype="int16")

    def resident_mb():
        pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 2**20

    sizes = []
    for _ in range(10):
        daemon.stdin.buffer.write(np.resize(samples, 60 * 16000).tobytes())
        daemon.stdin.buffer.flush()
        sizes.append(resident_mb())
    daemon.stdin.close()
    assert daemon.wait(20) == 0
    assert "heard 600.0 s of audio" in daemon.stderr.read()
    assert sizes[-1] - sizes[0] < 5.0


def test_the_daemon_imports_no_heavy_packages():
    script = "import sys, kwsd.cli, kwsd.service.daemon, kwsd.commands.label; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split())
    assert "onnxruntime" in loaded
    assert not loaded & {"tensorflow", "keras", "scipy", "tf2onnx", "onnx", "matplotlib"}


def test_listen_prints_readable_lines_and_json(start_daemon, few_seconds_wav):
    _, path = start_daemon("--source", few_seconds_wav)
    command = [sys.executable, "-m", "kwsd", "listen", "--once", "--socket", str(path)]
    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True) as as_json:
        readable = subprocess.run(command, capture_output=True, text=True, timeout=30).stdout
        lines = [parse_event(line) for line in as_json.stdout]
    assert isinstance(lines[-1], Goodbye)
    for label, _, _ in detections(lines):
        assert f" {label} " in readable
    assert "goodbye: the source ended" in readable


def test_listen_without_a_daemon_is_an_error_without_traceback(tmp_path):
    result = kwsd("listen", "--socket", tmp_path / "nobody.sock")
    assert result.returncode == 1
    assert "no kwsd to subscribe to" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_default_socket_is_in_the_session_folder(tmp_path):
    environment = os.environ | {"XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("RUNTIME_DIRECTORY", None)
    result = kwsd("listen", env=environment)
    assert str(tmp_path / "kwsd.sock") in result.stderr


def test_closing_the_terminal_ends_the_daemon_that_was_started_in_it(tmp_path):
    terminal, slave = pty.openpty()
    path = tmp_path / "kwsd.sock"
    command = [sys.executable, "-m", "kwsd", "run", "--source", str(DEMO), "--socket", str(path)]
    # The first terminal that a session leader opens becomes the session's terminal.
    in_terminal = f"import os; os.open({os.ttyname(slave)!r}, os.O_RDWR); os.execv({command[0]!r}, {command!r})"
    daemon = subprocess.Popen([sys.executable, "-c", in_terminal], start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        serving(path, daemon)
        events = subscribe(path, reconnect=False)
        assert isinstance(next(events), Hello)
        daemon.send_signal(signal.SIGHUP)  # a request to reload the configuration
        assert any(isinstance(event, DetectionEvent) for event in events)
        os.close(slave)
        os.close(terminal)
        assert [event.reason for event in events if isinstance(event, Goodbye)] == ["the terminal was closed"]
        assert daemon.wait(10) == 0
    finally:
        daemon.kill()
        daemon.wait()
