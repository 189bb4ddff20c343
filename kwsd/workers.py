"""Worker processes of a pool, and worker threads of an event loop.

Law: a worker never outlives the process that started it, and never delays its end.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import parent_process
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait. A process that is started meanwhile never gets it, not even before `begin_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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

    thread = Thread(target=run, daemon=True)
    _threads.add(thread)
    thread.start()
    return await future


def end_with_threads(status: int) -> None:
    """End the process with a status, if a thread of `in_thread` still runs.

    Such a thread may be inside a library, which aborts when the interpreter ends under it.
    """
    if any(thread.is_alive() for thread in _threads):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)


_threads: WeakSet[Thread] = WeakSet()
