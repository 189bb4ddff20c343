"""The metrics for Prometheus, read with its own parser; which streams are deaf, and when a restart would help."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kwsd.client import subscribe
from kwsd.config import Config, StreamConfig
from kwsd.protocol.events import DetectionEvent
from kwsd.service.capture import Capture
from kwsd.service.detector import Detector
from kwsd.service.health import DEAF_SECONDS, Health
from kwsd.service.inbox import Inbox
from kwsd.sources.base import Up
from support import DEMO, free_port, kwsd


def ask(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def figures(address):
    _, text = ask(address, "/metrics")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def start(start_daemon, tmp_path):
    def start(**keys):
        address = f"127.0.0.1:{free_port()}"
        config = tmp_path / "kwsd.yaml"
        config.write_text(json.dumps({"metrics": address, **keys}))
        return (*start_daemon("--config", config, stdin=subprocess.PIPE), address)

    return start


def test_metrics_count_audio_and_detections(start):
    _, path, address = start(source=str(DEMO))
    first = next(event for event in subscribe(path) if isinstance(event, DetectionEvent))
    found = figures(address)
    assert found["kwsd_detections_total", "default", first.label] == 1
    assert 2 < found["kwsd_audio_heard_seconds_total", "default"] < 10
    assert found["kwsd_audio_lost_seconds_total", "default"] == 0
    assert found["kwsd_source_up", "default"] == 1
    assert found["kwsd_events_total",] == first.seq + 1
    assert found["kwsd_hearing_seconds_count",] >= 20
    assert 0 < found["kwsd_lag_seconds_sum",] < 60
    assert found["kwsd_model_info", "CPUExecutionProvider", "ds_tcn"] == 1
    assert {"kwsd_subscribers", "kwsd_events_lagged_total", "kwsd_deaf_streams"} <= {name for name, *_ in found}
    assert ask(address, "/healthz") == (200, '{"status": "ok", "deaf": {}}\n')
    assert ask(address, "/")[0] == 404


def test_health_reports_a_stream_without_audio_as_deaf(start, demo):
    daemon, path, address = start(source="-")
    next(subscribe(path))
    status, text = ask(address, "/healthz")
    assert (status, json.loads(text)["deaf"]) == (503, {"default": "no audio yet"})
    daemon.stdin.buffer.write((demo[:16000] * 32767).astype("<i2").tobytes())
    daemon.stdin.buffer.flush()
    deadline = time.monotonic() + 10
    while ask(address, "/healthz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_clients_that_send_a_byte_now_and_then_do_not_lock_others_out(start):
    _, _, address = start(source="network", audio=f"127.0.0.1:{free_port()}")
    host, _, port = address.rpartition(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(40)]
    ended = time.monotonic() + 4
    try:
        while time.monotonic() < ended:
            for one in slow:
                with suppress(OSError):
                    one.send(b"G")
            time.sleep(0.4)
        assert ask(address, "/metrics")[0] == 200
        assert b"".join(one.recv(100) for one in slow) == b""  # the daemon has hung up
    finally:
        for one in slow:
            one.close()


def test_idle_connections_use_few_threads(start):
    daemon, path, address = start(source=str(DEMO))
    next(event for event in subscribe(path) if isinstance(event, DetectionEvent))  # so all its threads run
    before = n_threads(daemon)
    host, _, port = address.partition(":")
    idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(50)]
    try:
        for connection in idle[8:]:
            assert connection.recv(1) == b""  # refused
        assert n_threads(daemon) <= before + 8
    finally:
        for connection in idle:
            connection.close()
    deadline = time.monotonic() + 10
    while n_threads(daemon) > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert n_threads(daemon) <= before
    assert ask(address, "/healthz")[0] == 200


def test_a_port_in_use_is_a_one_line_error_and_leaves_no_socket(tmp_path):
    config, path = tmp_path / "kwsd.yaml", tmp_path / "kwsd.sock"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        config.write_text(f"metrics: {address}\n")
        result = kwsd("run", "--source", DEMO, "--socket", path, "--config", config)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        f"kwsd: {address}: cannot be bound (Address already in use); choose another address for metrics"
    )
    assert "Traceback" not in result.stderr
    assert not path.exists()


def n_threads(daemon):
    return len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))


class Nothing:
    name, is_live = "nothing", True


@pytest.fixture
def parts(model):
    config = Config(streams={"hall": StreamConfig(), "yard": StreamConfig(source="network")})
    detector, inbox = Detector(model, config), Inbox()
    capture = Capture(Nothing(), ["hall"], inbox)
    return detector, inbox, capture, Health(detector, inbox, ["hall", "yard"], {"hall": capture}, 0.0)


def hear(detector, *streams):
    for stream in streams:
        detector.process([(stream, Up(16000, 0.0))])
        detector.figures[stream].heard_seconds += 1


def test_all_streams_are_deaf_at_first(parts):
    detector, _, _, health = parts
    assert health.deaf(0.0) == {"hall": "no audio yet", "yard": "no audio yet"}
    assert not health.has_heard_all
    hear(detector, "hall")
    health.look(1.0)
    assert health.has_heard_all  # all sources that kwsd reads itself
    assert health.deaf(1.0) == {"yard": "no audio yet"}


def test_only_a_deaf_source_that_kwsd_reads_itself_counts_as_stuck(parts):
    detector, _, _, health = parts
    hear(detector, "hall", "yard")
    health.look(0.0)
    later = DEAF_SECONDS + 1
    assert health.deaf(later) == {"hall": "no audio for 11 s", "yard": "no audio for 11 s"}
    assert health.is_stuck(later)
    detector.figures["hall"].heard_seconds += 1
    health.look(later)
    assert health.deaf(later) == {"yard": "no audio for 11 s"}
    assert not health.is_stuck(later)


def test_a_source_that_is_down_counts_as_stuck_only_if_opening_it_hangs(parts):
    _, _, capture, health = parts
    assert not health.is_stuck(1000.0)
    capture.opening_since = 900.0
    assert not health.is_stuck(950.0)
    assert health.is_stuck(961.0)


def test_audio_that_is_not_taken_counts_as_stuck(parts, monkeypatch):
    _, inbox, _, health = parts
    now = 100.0
    monkeypatch.setattr("kwsd.service.capture.time.monotonic", lambda: now)
    inbox.put("yard", Up(16000, 0.0), waits=False)
    assert not health.is_stuck(now)
    now += DEAF_SECONDS + 1
    assert health.is_stuck(now)


def test_a_sender_that_pauses_is_no_reason_for_a_restart(start):
    _, _, address = start(streams={"hall": {"source": "network"}}, audio=f"127.0.0.1:{free_port()}")
    assert ask(address, "/healthz")[0] == 503
    assert ask(address, "/livez") == (200, '{"status": "ok"}\n')
