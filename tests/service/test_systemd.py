"""Messages to systemd, received by a test socket; and a listening socket that systemd opened."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent, Hello
from kwsd.service.systemd import JournalHandler
from support import DEMO


@pytest.fixture
def notified(tmp_path):
    """A socket that receives a service's notifications, and the environment that points to it."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as detector:
        detector.bind(str(path))
        detector.settimeout(20)
        yield detector, os.environ | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}


@pytest.mark.slow
def test_ready_and_watchdog_are_sent_only_while_audio_arrives(start_daemon, notified, demo):
    detector, environment = notified
    daemon, path = start_daemon("--source", "-", stdin=subprocess.PIPE, env=environment)
    assert isinstance(next(subscribe(path)), Hello)  # it accepts subscribers
    detector.settimeout(1.5)
    assert _said(detector, 1.5) <= {"WATCHDOG=1"}  # but gets no audio yet
    daemon.stdin.buffer.write((demo[:16000] * 32767).astype("<i2").tobytes())
    daemon.stdin.buffer.flush()
    said = _said(detector, 2)
    assert "READY=1" in said
    assert "WATCHDOG=1" in said
    _said(detector, 10.5)  # longer than a source may be deaf
    assert "WATCHDOG=1" not in _said(detector, 2)
    daemon.send_signal(signal.SIGTERM)
    assert "STOPPING=1" in _said(detector, 2)
    assert daemon.wait(5) == 0
    assert "deaf: default: no audio for 1" in daemon.stderr.read()


def _said(detector, seconds):
    said, deadline = set(), time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        detector.settimeout(left)
        try:
            said.add(detector.recv(1000).decode())
        except TimeoutError:
            break
    return said


def test_subscribers_can_connect_to_systemds_socket_before_the_daemon_starts(tmp_path, few_seconds_wav):
    path = tmp_path / "kwsd.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as early:
        listener.bind(str(path))
        listener.listen(8)
        early.connect(str(path))  # succeeds although no process accepts yet
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
            "os.execv(sys.executable, [sys.executable, '-m', 'kwsd', 'run', *sys.argv[2:]])"
        )
        command = [sys.executable, "-c", script, str(listener.fileno()), "--source", str(few_seconds_wav)]
        daemon = subprocess.Popen(
            [*command, "--socket", str(tmp_path / "unused")], pass_fds=[listener.fileno()], stderr=subprocess.PIPE
        )
        with daemon:
            lines = early.makefile("rb").readlines()
    assert lines[0].startswith(b'{"type":"hello"')
    assert any(b'"label":"down"' in line for line in lines)
    assert lines[-1].startswith(b'{"type":"goodbye"')
    assert daemon.returncode == 0
    assert path.exists()  # it belongs to systemd
    assert not (tmp_path / "unused").exists()


def test_the_journal_gets_structured_fields(tmp_path):
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(path))
        log = logging.getLogger("kwsd.test")
        handler = JournalHandler(str(path))
        log.addHandler(handler)
        log.warning("lost %d", 3, extra={"fields": {"KWSD_STREAM": "hall"}})
        one = journal.recv(4000).splitlines()
        log.error("two\nlines")
        two = journal.recv(4000)
        log.removeHandler(handler)
        handler.close()
    assert {b"MESSAGE=lost 3", b"PRIORITY=4", b"SYSLOG_IDENTIFIER=kwsd", b"KWSD_STREAM=hall"} <= set(one)
    assert b"MESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nPRIORITY=3\n" in two


def test_sockets_passed_to_another_process_are_ignored(start_daemon, few_seconds_wav):
    daemon, path = start_daemon("--source", few_seconds_wav, env=os.environ | {"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert any(isinstance(event, DetectionEvent) for event in subscribe(path, reconnect=False))
    assert daemon.wait(5) == 0


def test_a_missing_notify_socket_does_not_stop_the_daemon(start_daemon, tmp_path):
    daemon, path = start_daemon("--source", DEMO, env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "gone")})
    assert isinstance(next(subscribe(path)), Hello)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(5) == 0
    assert "NOTIFY_SOCKET" in daemon.stderr.read()


def test_without_a_journal_the_log_line_goes_to_standard_error(tmp_path, capsys):
    handler = JournalHandler(str(tmp_path / "nobody"))
    handler.emit(logging.LogRecord("kwsd", logging.WARNING, "file", 1, "source down: hall", None, None))
    handler.close()
    assert capsys.readouterr().err == "source down: hall\n"
