"""Servers that are measured from outside: they run on the first core, so that what measures them can use another."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

KWSD = (sys.executable, "-m", "kwsd", "run", "--quiet")


@contextmanager
def server(*command: object, ready: Path, stdin: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, and wait until it has made its socket `ready`. It ends with the block.

    Raises:
        SystemExit: it ended before, with what it said.
    """
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(os.getppid()))), *map(str, command)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(pinned, stdin=stdin, stdout=log, stderr=log)
        try:
            while not ready.exists():
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} has ended: {_text(log)}")
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait()


def _text(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace").strip()


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """CPU time that a process has used, all threads together."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process, in megabytes of 10^6 bytes."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
