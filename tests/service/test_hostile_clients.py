"""Clients that send too much, too little or nothing: no other client and no stream is affected."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kwsd.client import subscribe
from kwsd.protocol.events import (
    DetectionEvent,
    Error,
    Goodbye,
    Hello,
    Overrun,
    SourceDown,
    SourceUp,
    Subscribed,
    parse_event,
)
from support import DEMO, connect, ends_well, send_audio


def n_descriptors(daemon):
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_half_a_line_ends_in_an_error_after_five_seconds(quiet, tmp_path):
    daemon, path, _ = quiet(folder=tmp_path)
    with connect(path) as rude, rude.makefile("rb") as lines:
        assert isinstance(parse_event(lines.readline()), Hello)
        rude.sendall(b'{"type":"subscr')
        started = time.monotonic()
        [answer] = [parse_event(line) for line in lines]
    assert answer == Error(reason="a line without its end for 5 s", retryable=True)
    assert 4 < time.monotonic() - started < 8
    ends_well(daemon)


def test_ten_megabytes_without_a_newline_do_not_fill_memory(quiet, tmp_path):
    daemon, path, _ = quiet(folder=tmp_path)
    statm = Path(f"/proc/{daemon.pid}/statm")
    before = int(statm.read_text().split()[1])
    with connect(path) as rude, pytest.raises(ConnectionError):
        rude.sendall(b"x" * 10_000_000)
    assert (int(statm.read_text().split()[1]) - before) * resource.getpagesize() < 4e6
    assert isinstance(next(subscribe(path)), Hello)
    ends_well(daemon)


def test_hundreds_of_closed_connections_leak_no_descriptors(quiet, tmp_path):
    daemon, path, audio = quiet(folder=tmp_path)
    events = subscribe(path)
    assert isinstance(next(events), Hello)
    n_before = n_descriptors(daemon)
    for n in range(500):
        connect(path if n % 5 else audio).close()
    deadline = time.monotonic() + 10
    while n_descriptors(daemon) > n_before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert n_descriptors(daemon) <= n_before
    connection = send_audio(audio, np.zeros(1600, "<i2"))
    assert isinstance(next(events), SourceUp)
    connection.close()
    ends_well(daemon)


def test_thousands_of_requests_do_not_delay_other_subscribers(quiet, tmp_path):
    """Each request asks for the whole history; other subscribers still get their events within a second."""
    daemon, path, audio = quiet(folder=tmp_path)
    for _ in range(200):
        send_audio(audio, np.zeros(0, "<i2")).close()
    others = subscribe(path)
    assert isinstance(next(others), Hello)
    with connect(path) as rude:
        rude.setblocking(False)
        request = b'{"type":"subscribe","since":{"boot_id":"","seq":0}}\n'
        with suppress(BlockingIOError):
            for _ in range(100):
                rude.send(request * 1000)
        started = time.monotonic()
        connection = send_audio(audio, np.zeros(0, "<i2"), stream="b")
        assert any(isinstance(event, SourceUp) and event.stream == "b" for event in islice(others, 1000))
        assert time.monotonic() - started < 1
    connection.close()
    ends_well(daemon)


def test_empty_lines_cost_next_to_nothing(quiet, tmp_path):
    daemon, path, _ = quiet(folder=tmp_path)

    def cpu_seconds():
        fields = Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    with connect(path) as rude, rude.makefile("rb") as lines:
        assert isinstance(parse_event(lines.readline()), Hello)
        before = cpu_seconds()
        for _ in range(8):
            rude.sendall(b"\n \r\n" * 32_000)
        rude.sendall(b'{"type":"subscribe"}\n')
        assert isinstance(parse_event(lines.readline()), Subscribed)
    assert cpu_seconds() - before < 2  # with a turn of the loop for each, a second for 128 kB
    ends_well(daemon)


def test_a_client_that_does_not_read_cannot_fill_the_daemons_memory(quiet, tmp_path):
    daemon, path, audio = quiet(folder=tmp_path)
    with connect(path) as rude, connect(audio) as talker:
        rude.sendall(b'{"type":"subscribe","scores":true}\n')
        talker.sendall(b'{"stream":"a","live":false}\n')
        talker.settimeout(120)
        talker.sendall(bytes(2 * 16000 * 400))  # 4,000 scores: more than any buffer holds
        rude.setblocking(False)
        n_taken, deadline = 0, time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                n_taken += rude.send(bytes(b"x" * 65536))
            except BlockingIOError:
                time.sleep(0.05)
        assert n_taken < 2_000_000
    ends_well(daemon)


def test_without_free_descriptors_clients_are_refused_until_others_leave(quiet, tmp_path):
    """Surplus clients are refused or wait. After the others leave, the daemon works as before."""

    def few():
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    daemon, path, audio = quiet(folder=tmp_path, preexec_fn=few)
    with ExitStack() as everyone:

        def enter(connection):
            return everyone.enter_context(connection)

        lines = enter(enter(connect(path)).makefile("rb"))
        assert isinstance(parse_event(next(lines)), Hello)
        for n in range(18):
            enter(send_audio(audio, np.zeros(0, "<i2"), stream=str(n)))
            assert isinstance(parse_event(next(lines)), SourceUp)
        crowd = [enter(connect(path)) for _ in range(59)]
        surplus = [enter(connect(audio)) for _ in range(42)]
        answers = [one.recv(4096) for one in crowd]
        assert sum(b'"hello"' in answer for answer in answers) == 17
        assert sum(b"18 subscribers are connected, which is the limit" in answer for answer in answers) == 42
        refused = [one.recv(4096) for one in surplus]
        assert [line for line in refused if b"18 streams are connected, which is the limit" not in line] == []
    deadline = time.monotonic() + 10
    while True:
        try:
            assert isinstance(next(subscribe(path)), Hello)
            break
        except Exception:
            assert time.monotonic() < deadline
            time.sleep(0.2)
    connection = send_audio(audio, np.zeros(1600, "<i2"))
    events = subscribe(path, since=None)
    next(events)
    connection.close()
    assert any(isinstance(event, SourceDown) for event in events)
    ends_well(daemon)


def test_sigterm_under_load_says_goodbye_to_every_subscriber(start_daemon, tmp_path):
    daemon, path = start_daemon("--source", "-", stdin=subprocess.PIPE)
    samples, _ = soundfile.read(DEMO, dtype="int16")
    told = [[] for _ in range(30)]

    def follow(events):
        events.extend(subscribe(path, reconnect=False))

    threads = [threading.Thread(target=follow, args=(events,)) for events in told]
    for thread in threads:
        thread.start()

    def feed():
        try:
            for _ in range(200):
                daemon.stdin.buffer.write(samples.tobytes())
        except OSError:
            pass

    feeding = threading.Thread(target=feed)
    feeding.start()
    time.sleep(1.5)
    started = time.monotonic()
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(5) == 0
    assert time.monotonic() - started < 5
    feeding.join(5)
    for thread in threads:
        thread.join(5)
    for events in told:
        assert isinstance(events[-1], Goodbye)
        numbers = [event.seq for event in events if hasattr(event, "seq")]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert "Traceback" not in daemon.stderr.read()


HAMMER = """
import contextlib, json, socket, sys
for n in range(10**9):
    with socket.socket(socket.AF_UNIX) as connection, contextlib.suppress(OSError):
        connection.connect(sys.argv[1])
        connection.sendall(json.dumps({"stream": f"short {n}"}).encode() + b"\\n" + bytes(3200))
        if n % 500 == 499:
            connection.settimeout(3)  # one that is accepted gets no answer
            print(connection.recv(4096).decode(), end="", flush=True)
"""


def test_thousands_of_short_streams_do_not_deafen_a_good_one(quiet, tmp_path, few_seconds_wav):
    """Surplus streams are refused; the good one loses nothing, and the daemon still ends at once."""
    daemon, path, audio = quiet(folder=tmp_path)
    samples, _ = soundfile.read(few_seconds_wav, dtype="int16")
    events = subscribe(path)
    assert isinstance(next(events), Hello)
    with send_audio(audio, samples[:0], stream="good") as good:
        assert next(events).stream == "good"
        command = [sys.executable, "-c", HAMMER, str(audio)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as crowd:
            assert "more than 20 new streams a second; try again later" in crowd.stdout.readline()
            began = time.monotonic()
            for at in range(0, len(samples), 1600):
                time.sleep(max(0.0, began + at / 16000 - time.monotonic()))
                good.sendall(samples[at : at + 1600].tobytes())
            crowd.kill()
    told = []
    while not (told and isinstance(told[-1], SourceDown)):
        told += [event for event in islice(events, 1) if event.stream == "good"]
    assert [event.label for event in told if isinstance(event, DetectionEvent)] == ["down", "on"]
    assert not [event for event in told if isinstance(event, Overrun)]
    assert "audio socket: refuses new streams: more than 20" in ends_well(daemon)
