"""Compares kwsd with its peers: CPU time per second of audio, each system in a fresh process on one core.

    python -m benchmarks.peers [RECORDING] [--rounds 5] [-o benchmarks/peers.md]

The first run makes the environments of the peers below --environments. The systems take turns, so
that other load on the machine affects all of them. The table has the median, the least and the most
of all rounds. It also has each median as a multiple of kwsd's at 100 ms, and of kwsd's at the longest
stride that decides at least as often.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import venv
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
LIGHT_CNN_WIDE = ROOT / "models" / "light_cnn_wide.onnx"


@dataclass(frozen=True)
class System:
    """A system to measure.

    Attributes:
        script: a file in `systems/`. The Python of the environment with `requirement` runs it;
            without a requirement, this Python does.
        settings: environment variables that the script reads.
    """

    name: str
    script: str
    words: int
    decides_ms: int
    requirement: str = ""
    settings: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    root: Path = ROOT


def _notebook(what: str, engine: str, stride_ms: int, *arguments: str) -> System:
    settings = {"ENGINE": engine, "STRIDE_MS": str(stride_ms)}
    return System(f"the notebook's way, {what}", "notebook.py", 10, stride_ms, "", settings, arguments)


ALL = (
    System("kwsd", "kwsd_live.py", 10, 100),
    System("kwsd", "kwsd_live.py", 10, 20, "", {"STRIDE_MS": "20"}),
    System("pymicro-wakeword 2.5.0", "pymicro.py", 1, 30, "pymicro-wakeword==2.5.0"),
    System("pymicro-wakeword 2.5.0", "pymicro.py", 4, 30, "pymicro-wakeword==2.5.0", {"N_WORDS": "4"}),
    System("openWakeWord 0.5.1", "openwakeword_onnx.py", 1, 80, "openwakeword==0.5.1", {"N_WORDS": "1"}),
    System("openWakeWord 0.5.1", "openwakeword_onnx.py", 6, 80, "openwakeword==0.5.1", {"N_WORDS": "6"}),
    System("Porcupine 1.9.5", "porcupine.py", 1, 32, "pvporcupine==1.9.5"),
    System("Porcupine 1.9.5", "porcupine.py", 10, 32, "pvporcupine==1.9.5", {"N_WORDS": "10"}),
    System("pocketsphinx 5", "sphinx.py", 10, 10, "pocketsphinx>=5,<6"),
    _notebook("doubled, in ONNX Runtime", "onnx", 100, str(LIGHT_CNN_WIDE)),
    _notebook("doubled, in ONNX Runtime", "onnx", 20, str(LIGHT_CNN_WIDE)),
    _notebook("Keras `predict`", "keras", 100, "--repeat", "1"),
)


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="CPU time, memory and load time of kwsd and its peers.")
    parser.add_argument("recording", type=Path, nargs="?", default=ROOT / "demo" / "recording.wav")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure only systems whose names contain this")
    parser.add_argument("--beside", type=Path, metavar="DIR", help="also measure the kwsd of another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--core", type=int, default=0, help="core that all systems are pinned to (%(default)s)")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers", metavar="DIR")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    systems = [*ALL, *(_other_checkout(args.beside) if args.beside else ())]
    systems = [one for one in systems if args.only in one.name]
    pythons = {one.requirement: _python(one.requirement, args.environments) for one in systems}
    results: dict[int, list[dict[str, float]]] = {index: [] for index in range(len(systems))}
    failed: dict[int, str] = {}
    rounds = [(index, one) for _ in range(args.rounds) for index, one in enumerate(systems)]
    for index, one in tqdm(rounds, desc="measuring", unit=" runs", disable=None):
        if index not in failed:
            outcome = _run(one, pythons[one.requirement], args.recording.resolve(), args.core)
            if isinstance(outcome, str):
                failed[index] = outcome
            else:
                results[index].append(outcome)
    table = _table(systems, results, failed)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")
    return 1 if failed else 0


def _other_checkout(root: Path) -> list[System]:
    """Return the kwsd systems of another checkout, which run in this environment."""
    root = root.resolve()
    return [replace(one, name=f"kwsd in {root.name}", root=root) for one in ALL if one.name == "kwsd"]


def _python(requirement: str, folder: Path) -> Path:
    """The interpreter that runs a system: this one, or that of the environment with its requirement."""
    if not requirement:
        return Path(sys.executable)
    return environment(folder / requirement.translate(str.maketrans("<>=,.", "-----")), requirement)


def environment(home: Path, *requirements: str) -> Path:
    """The interpreter of an environment with a peer, which is made if needed: `pip install` with each of these."""
    python, ready = home / "bin" / "python", home / "ready"
    if not ready.exists():
        print(f"installing {', '.join(requirements)} in {home}", flush=True)
        venv.create(home, clear=True, with_pip=True)
        for requirement in requirements:
            subprocess.run([python, "-m", "pip", "install", "--quiet", *requirement.split()], check=True)
        ready.touch()
    return python


def _run(one: System, python: Path, recording: Path, core: int) -> dict[str, float] | str:
    """Return the figures that the script printed, or the last line of its error output."""
    script = one.root / "benchmarks" / "systems" / one.script
    command = ["taskset", "-c", str(core), python, script, recording, *one.arguments]
    environment = {**os.environ, **one.settings, "PYTHONPATH": str(one.root), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
    values: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return values


def _table(systems: list[System], results: dict[int, list[dict[str, float]]], failed: dict[int, str]) -> str:
    own = {
        one.decides_ms: statistics.median(run["cpu_ms"] for run in results[index])
        for index, one in enumerate(systems)
        if one.name == "kwsd" and results[index]
    }
    lines = [
        "| system | words | decides every | CPU ms for 1 s: median (least to most) | of kwsd's at 100 ms |"
        " of kwsd's as often | streams a core | resident MB | load s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for index, one in enumerate(systems):
        start = f"| {one.name} | {one.words} | {one.decides_ms} ms |"
        if index in failed:
            lines.append(f"{start} not measured: {failed[index]} | | | | | |")
            continue
        cpu, resident, load = (
            [run[key] for run in results[index]] for key in ("cpu_ms", "resident_mb", "load_seconds")
        )
        middle = statistics.median(cpu)
        as_often = max((stride_ms for stride_ms in own if stride_ms <= one.decides_ms), default=None)
        ratios = " | ".join(f"{middle / own[ms]:.1f}" if ms in own else "" for ms in (100, as_often))
        lines.append(
            f"{start} {middle:.2f} ({min(cpu):.2f} to {max(cpu):.2f}) | {ratios} | {1000 / middle:.0f} |"
            f" {statistics.median(resident):.0f} | {statistics.median(load):.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
