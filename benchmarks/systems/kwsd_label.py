"""Measures `kwsd label` on a folder.

python kwsd_label.py FOLDER MODEL FEW RAY

RAY is the address of a cluster, `local`, or `pool` for processes without Ray. The time for FEW, a folder
with one job for each core, is the time to start the workers.
"""

import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from kwsd.commands.label import label_corpus
from kwsd.core.model import load_model
from kwsd.corpus.folder import Folder


def main() -> None:
    """Label both folders, and print what it took."""
    folder, path, few, ray = sys.argv[1:]
    model = load_model(Path(path))
    n_clips, seconds = [], []
    largest = Largest()
    with tempfile.TemporaryDirectory() as output:
        for clips in (few, folder):
            began = time.perf_counter()
            summary = label_corpus(
                Folder(Path(clips)), Path(output) / "labels.csv", model, ray=None if ray == "pool" else ray
            )
            seconds.append(time.perf_counter() - began)
            n_clips.append(summary.counts.total())
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                "files_per_second": (n_clips[1] - n_clips[0]) / (seconds[1] - seconds[0]),
                "start_up_seconds": seconds[0],
                "own_mb": own * 1024 / 1e6,
                "worker_mb": workers * 1024 / 1e6 if ray == "pool" else largest.kb * 1024 / 1e6,
            }
        )
    )


class Largest(threading.Thread):
    """Watches Ray's workers, which are no children of this process: the largest resident size in kB so far."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.kb = 0
        self.start()

    def run(self) -> None:
        while True:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    if b"MapWorker" in (process / "cmdline").read_bytes():
                        status = (process / "status").read_text()
                        self.kb = max(self.kb, int(status.partition("VmHWM:")[2].split()[0]))
                except (OSError, IndexError):  # it has ended
                    continue
            time.sleep(0.5)


if __name__ == "__main__":
    main()
