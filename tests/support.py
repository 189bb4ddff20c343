"""Where things are, and the command line as a function."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "demo" / "recording.wav"


def kwsd(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    command = [sys.executable, "-m", "kwsd", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def meanwhile(function: Callable[..., object], *arguments: object) -> None:
    """Call it in a thread that ends with the connection or pipe that it writes to."""

    def run() -> None:
        with suppress(OSError):
            function(*arguments)

    threading.Thread(target=run, daemon=True).start()


def free_port() -> int:
    """A TCP port of this machine that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
