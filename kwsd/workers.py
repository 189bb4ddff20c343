"""Worker processes of a pool, and worker threads of an event loop.

Law: a worker never outlives the process that started it, and never delays its end.
"""

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import parent_process
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def begin_worker() -> None:
    """Set up a new worker process: it ignores Ctrl-C, which its parent handles, and ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


async def in_thread(function: Callable[[], T]) -> T:
    """As `asyncio.to_thread`, but the process can end before the function returns."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(set_outcome: Callable[[Any], None], outcome: object) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(lambda: None if future.done() else set_outcome(outcome))

    def run() -> None:
        try:
            finish(future.set_result, function())
        except Exception as error:
            finish(future.set_exception, error)

    Thread(target=run, daemon=True).start()
    return await future
