"""What systemd gives to a service, and what a service tells systemd, all through the environment.

Law: outside systemd these functions do nothing. Sources: sd_notify(3), sd_listen_fds(3),
sd_watchdog_enabled(3), systemd.journal-fields(7) and the journal's native protocol. Each takes
fewer lines here than a binding to libsystemd would add files.
"""

import logging
import os
import socket
import stat
import sys
import time
from collections import Counter, defaultdict
from contextlib import suppress
from functools import cache
from typing import ClassVar

from kwsd.limits import Rate
from kwsd.plain import plain

_FIRST_DESCRIPTOR = 3
_LINES_PER_SECOND, _LINES_AT_ONCE = 1.0, 500  # of one kind
_MOST_LETTERS = 2000  # of a line
_JOURNAL = "/run/systemd/journal/socket"


def notify(state: str) -> None:
    """Tell systemd "READY=1", "STOPPING=1", "WATCHDOG=1" or "STATUS=..."."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        _notifier().sendto(state.encode(), _abstract(address))
    except OSError as error:  # a service manager that is gone must not end the daemon
        logging.getLogger("kwsd").warning("NOTIFY_SOCKET %s: %s", address, error.strerror)


@cache
def _notifier() -> socket.socket:
    """Opened once, because the watchdog must be fed even when no descriptors are left."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def watchdog_seconds() -> float | None:
    """The longest time between two "WATCHDOG=1"; None if systemd does not watch."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    is_ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(wanted) / 1e6 if wanted.isdecimal() and is_ours else None


def is_activated() -> bool:
    """Whether systemd opened sockets for this process."""
    return os.environ.get("LISTEN_PID") == str(os.getpid())


def activated() -> list[socket.socket]:
    """Listening sockets that systemd opened for this process, so that subscribers can connect before it starts."""
    if not is_activated():
        return []
    n_passed = int(os.environ.get("LISTEN_FDS", "0"))
    return [socket.socket(fileno=_FIRST_DESCRIPTOR + n) for n in range(n_passed)]


def start_log() -> None:
    """Log to the journal, or to standard error. Text from outside cannot forge a line or move the cursor."""
    if is_under_journal():
        handler: logging.Handler = JournalHandler()
        form = logging.Formatter("%(message)s")
    else:
        handler = logging.StreamHandler()
        form = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(form)
    handler.addFilter(_Modest())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _Modest(logging.Filter):
    """Makes text plain, and leaves out what one place in the code says too often: a client could fill the disk."""

    def __init__(self) -> None:
        super().__init__()
        self._rates: defaultdict[tuple[str, int], Rate] = defaultdict(lambda: Rate(_LINES_PER_SECOND, _LINES_AT_ONCE))
        self._left_out: Counter[tuple[str, int]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        place = record.pathname, record.lineno
        if not self._rates[place].allows(time.monotonic()):
            self._left_out[place] += 1
            return False
        n_before = self._left_out.pop(place, 0)
        text = plain(record.getMessage()[:_MOST_LETTERS])
        record.msg, record.args = f"{text} ({n_before} such lines were left out)" if n_before else text, ()
        return True


class JournalHandler(logging.Handler):
    """Writes log records to the journal, with their fields.

    After `logging.info(..., extra={"fields": {"KWSD_STREAM": "hall"}})`, the record is found by
    `journalctl KWSD_STREAM=hall`.
    """

    _PRIORITIES: ClassVar[dict[int, int]] = {logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}

    def __init__(self, path: str = _JOURNAL) -> None:
        super().__init__()
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def emit(self, record: logging.LogRecord) -> None:
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": self._PRIORITIES.get(record.levelno, 7),
            "SYSLOG_IDENTIFIER": "kwsd",
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            **getattr(record, "fields", {}),
        }
        data = b"".join(_journal_field(name, str(value)) for name, value in fields.items())
        try:
            self._socket.sendto(data, self._path)
        except OSError:  # no journal there: the line itself is what counts
            with suppress(OSError, ValueError, AttributeError):  # standard error is gone, too
                sys.stderr.write(self.format(record) + "\n")

    def close(self) -> None:
        self._socket.close()
        super().close()


def is_under_journal() -> bool:
    """Whether standard error is connected to the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISSOCK(status.st_mode) and (device, inode) == (str(status.st_dev), str(status.st_ino))


def _journal_field(name: str, value: str) -> bytes:
    """A value that contains a newline is sent with its length before it."""
    data = value.encode(errors="replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _abstract(address: str) -> str:
    """An address that begins with @ is in Linux's abstract namespace, not in the file system."""
    return "\0" + address[1:] if address.startswith("@") else address
