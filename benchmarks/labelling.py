"""Labels a folder: compares kwsd with the notebook's way and with Ray, and shows if memory grows with the clips.

    python -m benchmarks.labelling [--clips 10000] [--many 100000] [--rounds 3] [-o benchmarks/labelling.md]

Every system may use all cores; the two nodes of Ray have half of them each. The clips are links to a
few hundred noise files, so that the disk is not measured. The systems take turns. Start-up has a column
of its own and is not part of the rates: for the notebook the import of TensorFlow, for kwsd the start
of its workers, for Ray also that of its node.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
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

_PORT = 6398
_ONE_NODE, _TWO_NODES = "local", f"127.0.0.1:{_PORT}"
_WAY = {"pool": "kwsd label", _ONE_NODE: "kwsd label --ray", _TWO_NODES: "kwsd label --ray, two nodes"}


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="Files a second, memory and start-up of labelling.")
    parser.add_argument("--clips", type=int, default=10000)
    parser.add_argument("--many", type=int, default=100000, help="number of clips for the second half of the table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    n_least = len(os.sched_getaffinity(0)) * JOB_CLIPS
    if min(args.clips, args.many) <= n_least:
        parser.error(f"--clips and --many must exceed {n_least} (a job per core, whose time is subtracted)")
    others = sorted((ROOT / "models").glob("light_cnn*.onnx"))
    ways = {f"{_WAY['pool']}, {path.stem}": (path, "pool") for path in (DEFAULT_MODEL, *others)}
    ways |= {f"{_WAY[ray]}, {DEFAULT_MODEL.stem}": (DEFAULT_MODEL, ray) for ray in (_ONE_NODE, _TWO_NODES)}
    notebooks = sorted({_OWN, *(path.stem for path in others)})
    with tempfile.TemporaryDirectory() as folder:
        least = _links(Path(folder) / "least", n_least)
        some = _links(Path(folder) / "some", args.clips)
        many = _links(Path(folder) / "many", args.many)
        runs = [(_notebook(name), "notebook_label.py", (some, name)) for name in notebooks]
        runs += [(name, "kwsd_label.py", (some, path, least, ray)) for name, (path, ray) in ways.items()]
        results: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in runs}
        for name, script, arguments in tqdm(runs * args.rounds, desc="labelling", unit=" runs", disable=None):
            results[name].append(_run(script, *arguments))
        at_many = {name: _run("kwsd_label.py", many, path, least, ray) for name, (path, ray) in ways.items()}
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
    ray = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "benchmark" * 4, "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **ray}
    command = [sys.executable, SYSTEMS / script, *arguments]
    with _two_nodes(environment) if _TWO_NODES in arguments else _nothing():
        began = time.perf_counter()
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - began
    values: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return {"start_up_seconds": seconds - values.get("seconds", 0)} | values


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _two_nodes(environment: dict[str, str]) -> Iterator[None]:
    """A cluster on this machine."""
    ray = Path(sys.executable).with_name("ray")
    start = [ray, "start", f"--num-cpus={max(1, len(os.sched_getaffinity(0)) // 2)}", "--block"]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    nodes = []
    try:
        for place in (["--head", f"--port={_PORT}", "--include-dashboard=false"], [f"--address={_TWO_NODES}"]):
            nodes.append(subprocess.Popen([*start, *place], **quiet))
            time.sleep(15)
        yield
    finally:
        for node in nodes:
            node.terminate()
            node.wait()


def _table(results: dict[str, list[dict[str, float]]], at_many: dict[str, dict[str, float]], n_many: int) -> str:
    rates = {name: [run["files_per_second"] for run in runs] for name, runs in results.items()}
    lines = [
        "| way | files/s: median (least to most) | of the notebook's | start-up s | largest process MB "
        f"| files/s of {n_many} | its largest process MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, values in rates.items():
        middle = statistics.median(values)
        same = _notebook(name.rpartition(" ")[2])  # the base has the same network, else the notebook's own
        base = statistics.median(rates[same if same in rates else _notebook(_OWN)])
        begun = statistics.median(run["start_up_seconds"] for run in results[name])
        rest = " |  | "
        if many := at_many.get(name):
            few, most = (max(run["own_mb"], run["worker_mb"]) for run in (results[name][0], many))
            rest = f"{few:.0f} | {many['files_per_second']:.0f} | {most:.0f}"
        spread = f"{middle:.0f} ({min(values):.0f} to {max(values):.0f})"
        lines.append(f"| {name} | {spread} | {middle / base:.1f} | {begun:.1f} | {rest} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
