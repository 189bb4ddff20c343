"""Measures `kwsd label` on a folder.

python kwsd_label.py FOLDER MODEL FEW

The time to start the workers is measured on FEW, a folder with one job for each core, and subtracted.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from kwsd.commands.label import label_corpus
from kwsd.core.model import load_model
from kwsd.corpus.folder import Folder

if __name__ == "__main__":
    model = load_model(Path(sys.argv[2]))
    n_clips, seconds = [], []
    with tempfile.TemporaryDirectory() as output:
        for folder in (sys.argv[3], sys.argv[1]):
            began = time.perf_counter()
            summary = label_corpus(Folder(Path(folder)), Path(output) / "labels.csv", model)
            seconds.append(time.perf_counter() - began)
            n_clips.append(summary.counts.total())
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                "files_per_second": (n_clips[1] - n_clips[0]) / (seconds[1] - seconds[0]),
                "own_mb": own * 1024 / 1e6,
                "worker_mb": workers * 1024 / 1e6,
            }
        )
    )
