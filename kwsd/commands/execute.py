"""A command for each detection: `kwsd listen --exec 'notify-send "$KWSD_LABEL"'`.

Law: text from the daemon never becomes part of a command line; it goes into the environment and to
standard input. Commands run one at a time, each with a time limit, so detections wait in the
subscriber's queue and not as processes.
"""

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import asdict

from kwsd.protocol.events import DetectionEvent


def execute(command: str, event: DetectionEvent, limit_seconds: float) -> str:
    """Run a shell command line; the event's fields are `KWSD_LABEL`, `KWSD_SCORE`, …, its JSON is the input.

    A field that the event lacks is empty.

    Returns:
        the problem in one line; empty if there was none.
    """
    text = event.to_json().encode() + b"\n"
    fields = {f"KWSD_{name.upper()}": "" if value is None else str(value) for name, value in asdict(event).items()}
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            env=os.environ | fields,
            start_new_session=True,  # so that the time limit also ends the processes that it starts
        )
    except (ValueError, OSError) as error:  # NUL, a lone surrogate, or more than the environment can hold
        return f"--exec: the command for event {event.seq} cannot be started ({error})"
    try:
        process.communicate(text, limit_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"--exec: the command for event {event.seq} took longer than {limit_seconds:g} s and was killed"
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        raise
    status = process.returncode
    return f"--exec: exit status {status} for event {event.seq}" if status else ""
