"""`kwsd label` on a folder, workers' start included.

python kwsd_label.py FOLDER MODEL
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from kwsd.label import label_folder
from kwsd.model import load_model

if __name__ == "__main__":
    model = load_model(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as output:
        began = time.perf_counter()
        summary = label_folder(Path(sys.argv[1]), Path(output) / "labels.csv", model)
        seconds = time.perf_counter() - began
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        json.dumps(
            {
                "files_per_second": summary.counts.total() / seconds,
                "own_mb": own * 1024 / 1e6,
                "worker_mb": workers * 1024 / 1e6,
            }
        )
    )
