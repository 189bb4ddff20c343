"""The metrics for Prometheus, read with its own parser."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent, Hello
from kwsd.service.control import State
from kwsd.service.outputs.metrics import health
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
        daemon, path = start_daemon("--config", config, stdin=subprocess.PIPE)
        assert isinstance(next(subscribe(path)), Hello)  # so the server for metrics runs, too
        return daemon, path, address

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
    assert "kwsd_source_up{" in ask(address, "/metrics?name[]=kwsd_source_up")[1]
    assert ask(address, "/healthz") == (200, '{"status": "ok", "deaf": {}}\n')
    assert ask(address, "/")[0] == 404


def test_health_reports_a_stream_without_audio_as_deaf(start, demo):
    daemon, _, address = start(source="-")
    status, text = ask(address, "/healthz")
    assert (status, json.loads(text)["deaf"]) == (503, {"default": "no audio yet"})
    daemon.stdin.buffer.write((demo[:16000] * 32767).astype("<i2").tobytes())
    daemon.stdin.buffer.flush()
    deadline = time.monotonic() + 10
    while ask(address, "/healthz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_only_a_restart_helps_is_stuck(model):
    state = State({}, {"hall": "no audio for 11 s"}, True, frozenset(), 0, 0, 0, "ds_tcn", "cpu")
    assert health("/livez", state) == {"status": "stuck"}
    assert health("/livez", replace(state, is_stuck=False)) == {"status": "ok"}
    assert health("/healthz", state) == {"status": "deaf", "deaf": {"hall": "no audio for 11 s"}}


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


@pytest.mark.slow
def test_idle_connections_use_few_threads(start):
    daemon, path, address = start(source=str(DEMO))
    next(event for event in subscribe(path) if isinstance(event, DetectionEvent))  # so all its threads run
    before = n_threads(daemon)
    host, _, port = address.partition(":")
    idle, most = [], before
    try:
        for _ in range(50):
            idle.append(socket.create_connection((host, int(port)), timeout=10))
            most = max(most, n_threads(daemon))
        for connection in idle[32:]:
            assert connection.recv(1) == b""  # refused
            most = max(most, n_threads(daemon))
        assert before + 8 < most <= before + 64  # one for each of 32, and one for its deadline
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


def test_a_sender_that_pauses_is_no_reason_for_a_restart(start):
    _, _, address = start(streams={"hall": {"source": "network"}}, audio=f"127.0.0.1:{free_port()}")
    assert ask(address, "/healthz")[0] == 503
    assert ask(address, "/livez") == (200, '{"status": "ok"}\n')
