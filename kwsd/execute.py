"""A command for each detection: `kwsd listen --exec 'notify-send "$KWSD_LABEL"'`.

The law of this file: what comes from the daemon is never part of a command line; it goes into
the environment and to standard input. One command at a time, and none for longer than its
limit, so detections wait in the subscriber's queue rather than pile up as processes.
"""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import asdict

from kwsd.events import DetectionEvent


def execute(command: str, event: DetectionEvent, limit_seconds: float) -> str:
    """Run a shell's command line with an event: its fields as `KWSD_LABEL`, `KWSD_SCORE`, … and its JSON as input.

    Returns:
        what went wrong, in a line; mostly nothing.
    """
    fields = {f"KWSD_{name.upper()}": str(value) for name, value in asdict(event).items()}
    process = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.PIPE,
        env=os.environ | fields,
        start_new_session=True,  # so that the limit holds for what it starts, too
    )
    try:
        process.communicate(event.to_json().encode() + b"\n", limit_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"--exec: took longer than {limit_seconds:g} s for event {event.seq} and was ended"
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        raise
    status = process.returncode
    return f"--exec: exit status {status} for event {event.seq}" if status else ""
