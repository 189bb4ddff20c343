"""Threads of an event loop, and processes of a pool."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context

import pytest

from kwsd.workers import finished, in_thread, uninterrupted


def test_a_thread_returns_its_result_while_the_loop_goes_on():
    async def run():
        started = asyncio.get_running_loop().time()
        thread, (ticks, name) = threading.current_thread().name, await asyncio.gather(tick(), in_thread(where))
        return thread, ticks, name, asyncio.get_running_loop().time() - started

    async def tick():
        for _ in range(5):
            await asyncio.sleep(0.01)
        return 5

    def where():
        time.sleep(0.02)
        return threading.current_thread().name

    thread, ticks, name, _ = asyncio.run(run())
    assert ticks == 5
    assert name != thread


def test_an_error_in_a_thread_is_raised_in_the_loop():
    with pytest.raises(ZeroDivisionError):
        asyncio.run(in_thread(lambda: 1 / 0))


def test_the_process_ends_before_a_thread_that_hangs():
    code = (
        "import asyncio, time\n"
        "from kwsd.workers import in_thread\n"
        "async def run():\n"
        "    task = asyncio.ensure_future(in_thread(lambda: time.sleep(60)))\n"
        "    await asyncio.sleep(0.1)\n"
        "    task.cancel()\n"
        "asyncio.run(run())\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stderr) == (0, "")


def test_ctrl_c_waits_while_workers_start():
    def blocked():
        return signal.pthread_sigmask(signal.SIG_BLOCK, ())

    with uninterrupted():
        child = [sys.executable, "-c", "import signal; print(signal.pthread_sigmask(signal.SIG_BLOCK, ()))"]
        assert "SIGINT" in subprocess.run(child, capture_output=True, text=True, check=True).stdout
        assert signal.SIGINT in blocked()
    assert signal.SIGINT not in blocked()


def test_an_error_kills_the_processes_of_a_pool_and_no_others():
    own = get_context("spawn").Process(target=time.sleep, args=(60,))
    own.start()
    try:
        with suppress(ZeroDivisionError), finished(ProcessPoolExecutor(1, get_context("spawn"))) as pool:
            job = pool.submit(time.sleep, 60)
            while not job.running():
                time.sleep(0.01)
            raise ZeroDivisionError
        assert job.exception() is not None
        assert own.is_alive()
    finally:
        own.kill()
        own.join()
