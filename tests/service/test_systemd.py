"""Messages to systemd, received by a test socket; and a listening socket that systemd opened."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
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
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(path))
        yield systemd, os.environ | {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "2000000"}


def test_ready_is_sent_with_the_first_audio_and_stopping_at_the_end(start_daemon, notified, demo):
    systemd, environment = notified
    daemon, path = start_daemon("--source", "-", stdin=subprocess.PIPE, env=environment)
    assert isinstance(next(subscribe(path)), Hello)  # it accepts subscribers
    assert _said(systemd, 1.0) <= {"WATCHDOG=1"}  # but gets no audio yet
    daemon.stdin.buffer.write((demo[:16000] * 32767).astype("<i2").tobytes())
    daemon.stdin.buffer.flush()
    assert "READY=1" in _said(systemd, until="READY=1")
    assert "WATCHDOG=1" in _said(systemd, until="WATCHDOG=1")
    daemon.send_signal(signal.SIGTERM)
    assert "STOPPING=1" in _said(systemd, until="STOPPING=1")
    assert daemon.wait(20) == 0


IS_LIVE = """
import sys, kwsd.service.health
from kwsd.sources.pcm import PcmInput
PcmInput.is_live, PcmInput.is_watched = True, False
kwsd.service.health.DEAF_SECONDS = 1.0
from kwsd.cli import main
sys.exit(main())
"""


def test_the_watchdog_is_no_longer_fed_when_a_live_source_is_deaf(notified, tmp_path, demo):
    systemd, environment = notified
    command = [sys.executable, "-c", IS_LIVE, "run", "--source", "-", "--socket", tmp_path / "kwsd.sock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as daemon:
        daemon.stdin.write((demo[:16000] * 32767).astype("<i2").tobytes())
        daemon.stdin.flush()
        assert "READY=1" in _said(systemd, until="READY=1")
        impatience = threading.Timer(60, daemon.kill)
        impatience.start()
        assert any(b"deaf: default: no audio for " in line for line in daemon.stderr)
        impatience.cancel()
        _said(systemd, 0.2)  # what was said before
        assert "WATCHDOG=1" not in _said(systemd, 2.0)
        daemon.kill()


def _said(systemd, seconds=20.0, until=None):
    """What the service says in some seconds, or until it says something."""
    said, deadline = set(), time.monotonic() + seconds
    while until not in said and (left := deadline - time.monotonic()) > 0:
        systemd.settimeout(left)
        try:
            said.add(systemd.recv(1000).decode())
        except TimeoutError:
            break
    return said


ACTIVATED = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "kwsd", "run", *sys.argv[2:]])
"""


def activated(listener):
    """The beginning of a command that runs the daemon as systemd does, with a socket."""
    return [sys.executable, "-c", ACTIVATED, str(listener.fileno())]


def test_subscribers_can_connect_to_systemds_socket_before_the_daemon_starts(tmp_path, few_seconds_wav):
    path = tmp_path / "kwsd.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as early:
        listener.bind(str(path))
        listener.listen(8)
        early.connect(str(path))  # succeeds although no process accepts yet
        command = [*activated(listener), "--source", few_seconds_wav, "--socket", tmp_path / "unused"]
        daemon = subprocess.Popen(command, pass_fds=[listener.fileno()], stderr=subprocess.PIPE)
        with daemon:
            lines = early.makefile("rb").readlines()
    assert lines[0].startswith(b'{"type":"hello"')
    assert any(b'"label":"down"' in line for line in lines)
    assert lines[-1].startswith(b'{"type":"goodbye"')
    assert daemon.returncode == 0
    assert path.exists()  # it belongs to systemd
    assert not (tmp_path / "unused").exists()


def test_a_socket_of_systemd_that_is_open_to_others_needs_a_token(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        result = subprocess.run(
            [*activated(listener), "--source", DEMO, "--socket", tmp_path / "unused"],
            pass_fds=[listener.fileno()],
            capture_output=True,
            text=True,
        )
    assert result.returncode == 1
    assert "is open to other machines; set token_file" in result.stderr


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
