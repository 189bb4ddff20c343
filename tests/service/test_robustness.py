"""Failures that happen in a house or a plant, applied to a real daemon."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import datetime
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent, Goodbye, Hello, Overrun, SourceDown, SourceUp
from kwsd.protocol.subscription import Since, Subscription
from kwsd.service.bus import Bus
from support import DEMO, connect, ends_well, free_port, kwsd, send_audio, serving


def test_events_lost_in_a_kill_and_restart_are_announced_as_a_gap(start_daemon, tmp_path, demo):
    """A subscriber stays while the daemon is killed between its events and started again."""
    events = []

    def follow(path):
        for event in subscribe(path):
            events.append(event)

    def heard():
        return [event for event in events if isinstance(event, DetectionEvent)]

    audio = tmp_path / "audio.sock"
    samples = (demo[: 6 * 16000] * 32767).astype("<i2")
    boots = []
    for n in range(2):
        daemon, path = start_daemon("--source", "network", "--audio", audio)
        if n == 0:
            threading.Thread(target=follow, args=(path,), daemon=True).start()
        deadline = time.monotonic() + 20
        while sum(isinstance(event, Hello) for event in events) <= n:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        boots.append([event for event in events if isinstance(event, Hello)][-1].boot_id)
        connection = send_audio(audio, samples, live=False)
        while len(heard()) < 2 * (n + 1):
            assert time.monotonic() < deadline, events
            time.sleep(0.02)
        connection.close()
        daemon.kill()
        daemon.wait()
    seen = [(event.boot_id, event.seq) for event in events if hasattr(event, "seq")]
    assert len(seen) == len(set(seen))
    assert [event.label for event in heard()] == ["down", "on"] * 2
    of_second = events[events.index(next(event for event in events if getattr(event, "boot_id", "") == boots[1])) :]
    assert any(event.type == "gap" for event in of_second)  # the last events of the first daemon may be lost


@pytest.mark.slow
def test_a_resumed_subscription_gets_missed_events_exactly_once(start_daemon):
    _, path = start_daemon("--source", DEMO)
    first, later = [], []
    for events, n in ((first, 1), (later, 2)):
        since = Since(first[-1].boot_id, first[-1].seq) if first else None
        following = subscribe(path, since=since)
        while sum(isinstance(event, DetectionEvent) for event in events) < n:
            events.append(next(following))
        following.close()
        time.sleep(4)  # the second word is spoken meanwhile
    numbers = [event.seq for event in first + later if hasattr(event, "seq")]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert not any(event.type == "gap" for event in later)


SLOW = """
import sys, time, kwsd.core.state
step = kwsd.core.state.SingleState.step
def slow(self, *args):
    time.sleep(1.0)  # ten times the stride
    return step(self, *args)
kwsd.core.state.SingleState.step = slow
from kwsd.cli import main
sys.exit(main())
"""


@pytest.mark.slow
def test_inference_ten_times_slower_than_real_time_announces_lost_audio(tmp_path, demo):
    """Lost audio is announced, detections are not stale, and the daemon shuts down cleanly."""
    path, audio = tmp_path / "kwsd.sock", tmp_path / "audio.sock"
    command = [sys.executable, "-c", SLOW, "run", "--source", "network", "--audio", audio, "--socket", path]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            serving(audio, daemon)
            events = subscribe(path, reconnect=False)
            next(events)
            connection = connect(audio)
            connection.sendall(b'{"stream":"a"}\n')
            samples = (np.resize(demo, 10 * 16000) * 32767).astype("<i2")
            for start in range(0, len(samples), 3200):  # twice real time
                connection.sendall(samples[start : start + 3200].tobytes())
                time.sleep(0.1)
            assert isinstance(next(events), SourceUp)
            daemon.send_signal(signal.SIGTERM)
            *rest, last = events
            assert daemon.wait(5) == 0
            log = daemon.stderr.read()
        finally:
            daemon.kill()
    connection.close()
    assert sum(event.lost_seconds for event in rest if isinstance(event, Overrun)) > 4
    assert isinstance(last, Goodbye)
    assert last.heard_seconds < 3  # waiting audio is not processed
    assert "Traceback" not in log
    assert "overrun: a lost" in log


HANGS = """
import sys, time, kwsd.service.daemon
from kwsd.sources.wav import WavFile
WavFile.open = lambda self: time.sleep(60)
kwsd.service.daemon._OPENING_SECONDS = float(sys.argv.pop(1))
from kwsd.cli import main
sys.exit(main())
"""


def test_the_daemon_works_while_a_source_hangs_on_opening(tmp_path):
    """PortAudio hangs if its sound server hangs. Signals, health, subscribers and a time limit still work."""
    path, config, metrics = tmp_path / "kwsd.sock", tmp_path / "kwsd.yaml", f"127.0.0.1:{free_port()}"
    config.write_text(f"metrics: {metrics}\n")
    start = [sys.executable, "-c", HANGS, "60", "run", "--source", DEMO, "--socket", path, "--config", config]
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            serving(path, daemon)
            events = subscribe(path, reconnect=False)
            assert isinstance(next(events), Hello)
            with pytest.raises(urllib.error.HTTPError, match="503"):  # deaf
                urllib.request.urlopen(f"http://{metrics}/healthz", timeout=5)
            daemon.send_signal(signal.SIGTERM)
            assert next(events).reason == "SIGTERM"
            assert daemon.wait(5) == 0
        finally:
            daemon.kill()
    start[3] = "0.3"
    result = subprocess.run(start, stderr=subprocess.PIPE, text=True, timeout=20)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"kwsd: {DEMO}: not open after 0.3 s; does the sound server hang?"


DEFECTIVE = """
import sys
from kwsd.service.audio_socket import AudioSocket
from kwsd.sources.wav import WavFile
def defect(self, *args):
    raise ZeroDivisionError("a defect")
    {more}
{place} = defect
from kwsd.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize(("place", "more"), [("WavFile._chunks", "yield"), ("AudioSocket._accept", "")])
def test_a_defect_in_one_of_many_sources_ends_the_daemon_with_its_traceback(tmp_path, place, more, few_seconds_wav):
    """The daemon never keeps running without audio. Only a defect shows a traceback."""
    config, audio = tmp_path / "kwsd.yaml", tmp_path / "audio.sock"
    streams = {"a": {"source": str(few_seconds_wav)}, "b": {"source": "network"}}
    config.write_text(json.dumps({"streams": streams, "audio": str(audio)}))
    code = DEFECTIVE.format(place=place, more=more)
    command = [sys.executable, "-c", code, "run", "--config", config, "--socket", tmp_path / "s"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            deadline = time.monotonic() + 20
            while daemon.poll() is None and time.monotonic() < deadline:
                with suppress(OSError):  # not yet, or no longer
                    connect(audio).close()
                time.sleep(0.05)
            assert daemon.returncode == 1
            assert "ZeroDivisionError: a defect" in daemon.stderr.read()
        finally:
            daemon.kill()
    assert not audio.exists()


def test_an_invalid_model_on_sighup_keeps_the_old_configuration(start_daemon, tmp_path):
    config = tmp_path / "kwsd.yaml"
    config.write_text(f"source: {DEMO}\n")
    daemon, path = start_daemon("--config", config)
    events = subscribe(path, reconnect=False)
    assert isinstance(next(events), Hello)
    (tmp_path / "foreign.onnx").write_bytes(DEMO.read_bytes()[:5000])
    config.write_text(f"source: {DEMO}\nmodel: {tmp_path / 'foreign.onnx'}\n")
    daemon.send_signal(signal.SIGHUP)
    assert any(isinstance(event, DetectionEvent) for event in events)
    log = ends_well(daemon)
    assert "foreign.onnx: " in log
    assert "the old configuration stays" in log


def test_a_missing_source_is_a_one_line_error_with_every_output_configured(tmp_path):
    config = tmp_path / "kwsd.yaml"
    keys = {"source": str(tmp_path / "absent.wav"), "metrics": f"127.0.0.1:{free_port()}"}
    config.write_text(json.dumps(keys | {"clips": {"folder": str(tmp_path)}, "audio": str(tmp_path / "a")}))
    result = kwsd("run", "--config", config, "--socket", tmp_path / "s")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"kwsd: {tmp_path / 'absent.wav'}: No such file or directory"
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "s").exists()


def test_a_regular_file_at_the_socket_path_is_kept(tmp_path):
    path = tmp_path / "kwsd.sock"
    path.write_text("precious")
    result = kwsd("run", "--source", DEMO, "--socket", path)
    assert result.returncode == 1
    assert result.stderr == f"kwsd: {path}: already exists and is not a socket; choose another path, or remove it\n"
    assert path.read_text() == "precious"


def test_nan_infinities_clipping_and_an_offset_do_not_stop_detection(quiet, tmp_path, demo):
    daemon, path, audio = quiet(folder=tmp_path)
    events = subscribe(path, reconnect=False)
    assert isinstance(next(events), Hello)
    bad = np.full(16000, 0.3, "<f4")
    bad[::7], bad[1::7], bad[2::7], bad[3::7] = np.nan, np.inf, -np.inf, 1e30
    good = demo[: 4 * 16000].astype("<f4")
    send_audio(audio, np.concatenate([bad, good + 0.2, bad, good]), encoding="f32le", live=False).close()
    labels = []
    for event in events:
        if isinstance(event, DetectionEvent):
            labels.append(event.label)
            assert -120 <= event.loudness_dbfs <= 1
        elif isinstance(event, SourceDown):
            break
    assert labels == ["down", "down"]
    ends_well(daemon)


def test_a_clock_set_back_changes_neither_seq_nor_history(monkeypatch):
    class Clock(datetime):
        year_now = 2030

        @classmethod
        def now(cls, zone=None):
            return cls(cls.year_now, 1, 1, tzinfo=zone)

    monkeypatch.setattr("kwsd.service.bus.datetime", Clock)
    bus, told = Bus(), []
    stamped = [bus.publish(Overrun(stream="a", lost_seconds=0.1))]
    Clock.year_now = 2020
    stamped.append(bus.publish(Overrun(stream="a", lost_seconds=0.1)))
    bus.resume(bus.subscribe(told.append), Subscription(since=Since(stamped[0].boot_id, 0)))
    assert [event.seq for event in stamped] == [0, 1]
    assert [event.time[:4] for event in stamped] == ["2030", "2020"]
    assert [json.loads(line)["type"] for line in b"".join(told).splitlines()] == ["subscribed", "overrun"]


def test_every_line_of_a_connection_fits_the_schema(start_daemon, few_seconds_wav):
    schema = json.loads(files("kwsd.protocol").joinpath("events.schema.json").read_text())
    _, path = start_daemon("--source", few_seconds_wav)
    with connect(path) as connection, connection.makefile("rb") as lines:
        connection.sendall(b'{"type":"subscribe","since":{"boot_id":"x","seq":3},"scores":true}\n')
        told = [json.loads(line) for line in lines]
    for line in told:
        jsonschema.validate(line, schema)
    assert {line["type"] for line in told} == {
        "hello", "source_up", "subscribed", "gap", "scores", "detection", "source_down", "goodbye",
    }  # fmt: skip
