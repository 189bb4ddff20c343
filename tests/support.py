"""Paths, and helpers for commands, daemons and sockets."""

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo" / "recording.wav"


def kwsd(*arguments: object, timeout: float = 60, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a kwsd command and wait until it exits."""
    command = [sys.executable, "-m", "kwsd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **options)


def meanwhile(function: Callable[..., object], *arguments: object) -> None:
    """Call the function in a thread, which ends when the connection or pipe that it writes to closes."""

    def run() -> None:
        with suppress(OSError):
            function(*arguments)

    threading.Thread(target=run, daemon=True).start()


def serving(path: Path, daemon: subprocess.Popen[str], seconds: float = 20) -> None:
    """Wait until the daemon accepts connections at the path of a Unix socket.

    The socket's file exists before the daemon accepts connections, so this function connects. If the
    daemon ends first, or does not accept in time, the test fails with the daemon's log.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and daemon.poll() is None:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        time.sleep(0.02)
    daemon.kill()
    log = daemon.stderr.read() if daemon.stderr else ""
    raise AssertionError(f"nothing serves at {path}; the daemon's log:\n{log}")


def listens(port: int, seconds: float = 20) -> None:
    """Wait until something accepts connections on a TCP port of this machine."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.02)


def connect(path: Path) -> socket.socket:
    """Connect to a Unix socket. Reads and writes time out after 20 s."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


def send_audio(path: Path, samples: np.ndarray, encoding: str = "s16le", **header: object) -> socket.socket:
    """Send samples, already in the encoding's type, to the audio socket; returns the open connection."""
    connection = connect(path)
    connection.sendall(json.dumps({"stream": "a", "encoding": encoding, **header}).encode() + b"\n")
    connection.sendall(samples.tobytes())
    return connection


def ends_well(daemon: subprocess.Popen[str]) -> str:
    """Send SIGTERM; the daemon must exit within 5 s with status 0 and no traceback. Returns its log."""
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(5) == 0
    log = daemon.stderr.read()
    assert "Traceback" not in log
    return log


def free_port() -> int:
    """A TCP port of this machine that is free now, and below those that outgoing connections take."""
    while True:
        port = random.randrange(20000, 32768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
