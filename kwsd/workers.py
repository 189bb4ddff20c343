"""Worker processes of a pool, and worker threads of an event loop.

Law: a worker never outlives the process that started it, and never delays its end.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from multiprocessing import active_children, parent_process
from threading import Thread
from typing import Any, TypeVar
from weakref import WeakSet

T = TypeVar("T")
Pool = TypeVar("Pool", bound=Executor)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait. A process that is started meanwhile never gets it, not even before `begin_worker`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def finished(pool: Pool) -> Iterator[Pool]:
    """Wait for a new pool's jobs at the end of the block; but not after an error or Ctrl-C, when one may hang.

    Its worker processes are then killed, and its threads left to `end_with_threads`.
    """
    others = set(active_children())
    try:
        yield pool
    except BaseException:
        workers = set(active_children()) - others
        for worker in workers:
            worker.kill()
        pool.shutdown(wait=bool(workers), cancel_futures=True)
        raise
    pool.shutdown()


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
    import asyncio  # here, because every command loads this module

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
    """End the process with a status, if a thread of `in_thread` or of a pool still runs.

    Such a thread may be inside a library, which aborts when the interpreter ends under it, or wait for a server that
    hangs, and the interpreter would wait for it.
    """
    others = set(threading.enumerate()) - {threading.main_thread()}
    if any(thread in _threads or not thread.daemon for thread in others):
        logging.shutdown()
        sys.stdout.flush()
        os._exit(status)


_threads: WeakSet[Thread] = WeakSet()
