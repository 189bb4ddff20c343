"""For programs that want to know what was said.

from kwsd.client import subscribe

for event in subscribe():
    if event.type == "detection":
        print(event.label, event.score)
"""

import socket
from collections.abc import Iterator
from pathlib import Path

from kwsd.config import default_socket
from kwsd.errors import SocketError
from kwsd.events import Event, parse_event


def subscribe(path: Path | None = None) -> Iterator[Event]:
    """Yield events as they happen, from `Hello` until the daemon ends.

    Args:
        path: of the daemon's socket; None for the default one.

    Raises:
        SocketError: nobody serves there, or what comes is not kwsd's protocol.
    """
    path = path or default_socket()
    with _connect(path) as connection, connection.makefile("rb") as lines:
        for line in lines:
            try:
                event = parse_event(line)
            except ValueError as error:
                raise SocketError(f"{path}: {error}") from None
            yield event


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
