"""The systemd units are valid and strict, and the daemon runs under the part of their sandbox that works here."""

import ctypes
import grp
import os
import shutil
import signal
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent, Hello, SourceDown
from support import ROOT, serving

UNITS = ROOT / "systemd"
SANDBOX = ROOT / "tests" / "systemd" / "sandbox.py"

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")


def analyze(*arguments):
    return subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_the_units_are_valid(tmp_path):
    for unit in UNITS.iterdir():  # with a program that exists
        text = unit.read_text().replace("/opt/kwsd/bin/kwsd", sys.executable)
        (tmp_path / unit.name).write_text(text)
    result = analyze("verify", "--recursive-errors=no", *tmp_path.glob("kwsd.*"))
    assert (result.returncode, result.stderr) == (0, "")


def test_the_check_finds_a_misspelt_key(tmp_path):
    text = (UNITS / "kwsd.service").read_text().replace("/opt/kwsd/bin/kwsd", sys.executable)
    (tmp_path / "kwsd.service").write_text(text.replace("NoNewPrivileges", "NoNewPrivilege"))
    assert analyze("verify", "--recursive-errors=no", tmp_path / "kwsd.service").returncode


def test_the_service_has_a_low_exposure_score():
    result = analyze("security", "--offline=true", "--threshold=20", UNITS / "kwsd.service")
    assert result.returncode == 0, result.stdout.splitlines()[-1]


def has_seccomp():
    try:
        return bool(ctypes.CDLL("libseccomp.so.2"))
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not has_seccomp(), reason="no libseccomp here")
def test_the_daemon_detects_and_serves_under_the_sandbox(tmp_path, few_seconds_wav):
    path, config = tmp_path / "kwsd.sock", tmp_path / "kwsd.yaml"
    (tmp_path / "clips").mkdir()
    keys = {"source": few_seconds_wav, "audio": tmp_path / "audio.sock", "socket_group": grp.getgrgid(os.getgid())[0]}
    lines = [f"{key}: {value}" for key, value in keys.items()]
    config.write_text("\n".join([*lines, f"clips: {{folder: {tmp_path / 'clips'}}}", "tcp: 127.0.0.1:0"]))
    command = [sys.executable, SANDBOX, UNITS / "kwsd.service", sys.executable, "-m", "kwsd", "run"]
    daemon = subprocess.Popen([*command, "--config", config, "--socket", path], stderr=subprocess.PIPE, text=True)
    with daemon:
        serving(path, daemon)
        status = Path(f"/proc/{daemon.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        events = subscribe(path, reconnect=False)
        assert isinstance(next(events), Hello)
        daemon.send_signal(signal.SIGHUP)
        told = list(takewhile(lambda event: not isinstance(event, SourceDown), events))
        labels = [event.label for event in told if isinstance(event, DetectionEvent)]
        daemon.terminate()  # otherwise it would wait for audio on the audio socket
        log = daemon.stderr.read()
    assert labels == ["down", "on"]
    assert "reload: done" in log
    assert daemon.returncode == 0
    assert len(list((tmp_path / "clips").glob("*.wav"))) == 2


@pytest.mark.skipif(not has_seccomp(), reason="no libseccomp here")
def test_the_sandbox_refuses_forbidden_system_calls():
    script = (
        "import os, socket, mmap\n"
        "for what in (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),"
        " lambda: mmap.mmap(-1, 4096, prot=7), lambda: os.sched_setaffinity(0, {0})):\n"
        "    try: what(); print('allowed')\n"
        "    except OSError: print('refused')\n"
    )
    command = [sys.executable, SANDBOX, UNITS / "kwsd.service", sys.executable, "-c", script]
    assert subprocess.run(command, capture_output=True, text=True).stdout.split() == ["refused"] * 3
    assert os.sched_getaffinity(0)
