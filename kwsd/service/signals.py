"""Signals, and errors in the event loop's callbacks, become state that the daemon waits for, or log lines."""

import asyncio
import logging
import math
import os
import signal
from typing import Any

log = logging.getLogger("kwsd")

_SAME_TROUBLE_SECONDS = 60.0


class Signals:
    """Turns signals into state that the daemon waits for. The first reason to end counts.

    SIGTERM and SIGINT end the daemon. SIGHUP asks for a reload, unless it comes because the
    terminal that started the daemon was closed.

    Attributes:
        ended: the reason, or the error that ended the daemon.
        reload: set by SIGHUP.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[str] = loop.create_future()
        self.reload = asyncio.Event()
        self._had_terminal = _has_terminal()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end, signal.Signals(number).name)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)

    def end(self, outcome: str | BaseException) -> None:
        """End the daemon with a reason, or with an error."""
        if self.ended.done():
            return
        if isinstance(outcome, BaseException):
            self.ended.set_exception(outcome)
        else:
            self.ended.set_result(outcome)

    def ignore_reloads(self) -> None:
        """From now on, SIGHUP does nothing."""
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _hang_up(self) -> None:
        if self._had_terminal and not _has_terminal():
            self.end("the terminal was closed")
        else:
            self.reload.set()


def _has_terminal() -> bool:
    """Whether the process has a controlling terminal."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class LoopTrouble:
    """The loop's handler for errors in callbacks. An `OSError`, such as no descriptors left, becomes one log line."""

    def __init__(self) -> None:
        self._logged: dict[str, float] = {}

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError):
            loop.default_exception_handler(context)
            return
        line = f"{context['message']}: {error.strerror or error}"
        if loop.time() - self._logged.get(line, -math.inf) > _SAME_TROUBLE_SECONDS:
            self._logged = {line: at for line, at in self._logged.items() if loop.time() - at < _SAME_TROUBLE_SECONDS}
            self._logged[line] = loop.time()
            log.warning("%s", line)
