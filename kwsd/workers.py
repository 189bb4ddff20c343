"""Worker processes of a pool.

The law of this file: they end with the process that began them, however that ends.
"""

import os
import signal
from multiprocessing import parent_process
from threading import Thread


def begin_worker() -> None:
    """In a new worker: Ctrl-C is its parent's alone, and it does not outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)
