"""For programs that want to know what was said.

from kwsd.client import subscribe

for event in subscribe():
    if event.type == "detection":
        print(event.label, event.score)
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kwsd.config import default_socket
from kwsd.errors import SocketError
from kwsd.events import Event, Goodbye, parse_event


def subscribe(path: Path | None = None) -> Iterator[Event]:
    """Yield events as they happen, from `Hello` until the daemon ends.

    Args:
        path: of the daemon's socket; None for the default one.

    Raises:
        SocketError: nobody serves there, or what comes is not kwsd's protocol.
    """
    path = path or default_socket()
    with _connect(path) as connection, connection.makefile("rb") as lines:
        while line := _read_line(lines, path):
            try:
                event = parse_event(line)
            except ValueError as error:
                raise SocketError(f"{path}: {error}") from None
            yield event
            if isinstance(event, Goodbye):
                return
    raise SocketError(f"{path}: the daemon ended without a goodbye")


def _read_line(lines: BinaryIO, path: Path) -> bytes:
    try:
        return lines.readline()
    except OSError as error:
        raise SocketError(f"{path}: the connection broke ({error.strerror})") from None


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        raise SocketError(
            f"{path}: no kwsd to subscribe to ({error.strerror or error}); start one with `kwsd run`"
        ) from None
    return connection
