"""The sources of a sound server, PulseAudio or PipeWire, by name.

PortAudio sees a sound server as one ALSA device, `pulse`, whose source is the server's default. The
client library takes another source from the variable PULSE_SOURCE each time it opens a stream.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

DEVICE = "pulse"
"""ALSA's device for the sound server, from Debian's libasound2-plugins."""

_VARIABLE = "PULSE_SOURCE"
_TIMEOUT_SECONDS = 3.0


def server_sources() -> list[str]:
    """Names of the server's sources, as `pactl` lists them. Empty without `pactl` or without a server."""
    command = ["pactl", "list", "short", "sources"]
    try:
        result = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = (line.split("\t") for line in os.fsdecode(result.stdout).splitlines())
    return [row[1] for row in rows if len(row) > 1]


@contextmanager
def chosen(source: str) -> Iterator[None]:
    """Let streams that are opened now record from this source. Not for several threads at once."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = source
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
