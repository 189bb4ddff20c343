"""Labels a folder: compares kwsd with the notebook's way, and shows if memory grows with the number of clips.

    python -m benchmarks.labelling [--clips 10000] [--many 100000] [--rounds 3] [-o benchmarks/labelling.md]

Every system may use all cores. The clips are links to a few hundred noise files, so that the disk
is not measured. The systems take turns. Start-up time is not counted: for the notebook the import of
TensorFlow, for kwsd the start of its workers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from kwsd.commands.label import JOB_CLIPS
from kwsd.core.model import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]
SYSTEMS = Path(__file__).resolve().with_name("systems")
_N_DIFFERENT = 256
_OWN = "light_cnn"
"""The notebook's own network."""


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="Files a second and memory of labelling.")
    parser.add_argument("--clips", type=int, default=10000)
    parser.add_argument("--many", type=int, default=100000, help="number of clips for the memory measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    n_least = len(os.sched_getaffinity(0)) * JOB_CLIPS
    if min(args.clips, args.many) <= n_least:
        parser.error(f"--clips and --many must exceed {n_least} (a job per core, whose time is subtracted)")
    others = sorted((ROOT / "models").glob("light_cnn*.onnx"))
    models = {f"kwsd label, {path.stem}": path for path in (DEFAULT_MODEL, *others)}
    notebooks = sorted({_OWN, *(path.stem for path in others)})
    with tempfile.TemporaryDirectory() as folder:
        least = _links(Path(folder) / "least", n_least)
        some = _links(Path(folder) / "some", args.clips)
        many = _links(Path(folder) / "many", args.many)
        runs = [(_notebook(name), "notebook_label.py", (some, name)) for name in notebooks]
        runs += [(name, "kwsd_label.py", (some, path, least)) for name, path in models.items()]
        results: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in runs}
        for name, script, arguments in tqdm(runs * args.rounds, desc="labelling", unit=" runs", disable=None):
            results[name].append(_run(script, *arguments))
        at_many = {name: _run("kwsd_label.py", many, path, least) for name, path in models.items()}
    table = _table(results, at_many, args.many)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")
    return 0


def _notebook(architecture: str) -> str:
    return f"the notebook's way, {architecture} in Keras"


def _links(clips: Path, n_clips: int) -> Path:
    clips.mkdir()
    random = np.random.default_rng(0)
    for n in range(n_clips):
        if n < _N_DIFFERENT:
            samples = random.uniform(0.001, 0.3) * random.standard_normal(16000)
            soundfile.write(clips / f"clip_{n:06}.wav", np.clip(samples, -1, 1), 16000, subtype="PCM_16")
        else:
            os.link(clips / f"clip_{n % _N_DIFFERENT:06}.wav", clips / f"clip_{n:06}.wav")
    return clips


def _run(script: str, *arguments: Path | str) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, SYSTEMS / script, *arguments]
    result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return values


def _table(results: dict[str, list[dict[str, float]]], at_many: dict[str, dict[str, float]], n_many: int) -> str:
    rates = {name: [run["files_per_second"] for run in runs] for name, runs in results.items()}
    lines = [
        f"| way | files/s: median (least to most) | of the notebook's | largest process MB | with {n_many} files |",
        "|---|---|---|---|---|",
    ]
    for name, values in rates.items():
        middle = statistics.median(values)
        same = _notebook(name.rpartition(" ")[2])  # the base has the same network, else the notebook's own
        base = statistics.median(rates[same if same in rates else _notebook(_OWN)])
        memory = " | "
        if name in at_many:
            largest = [max(run["own_mb"], run["worker_mb"]) for run in (results[name][0], at_many[name])]
            memory = " | ".join(f"{one:.0f}" for one in largest)
        spread = f"{middle:.0f} ({min(values):.0f} to {max(values):.0f})"
        lines.append(f"| {name} | {spread} | {middle / base:.1f} | {memory} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
