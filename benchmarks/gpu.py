"""A GPU beside the CPU of the same machine: golden check, parity, streams, labelling, time to the first event.

    python -m benchmarks.gpu [--device cuda] [-o benchmarks/gpu.md]

`benchmarks/gpu.sh` runs it. Parity is the largest difference of a posterior from the CPU's, over random
windows; with TF32, a GPU computes with 10 bits of mantissa, which kwsd switches off. Streams: how many
one process could serve in real time, from the time that a shared run of many takes.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from kwsd.commands.jobs import Labeller
from kwsd.core.card import golden_windows
from kwsd.core.model import DEFAULT_MODEL, Model, load_model
from kwsd.core.runtime import CUDA, ort
from kwsd.core.spotter import Spotter
from kwsd.core.stream_batch import StreamBatch
from kwsd.corpus.folder import Folder
from kwsd.corpus.source import Clip
from kwsd.errors import ModelError

RECORDING = Path(__file__).resolve().parents[1] / "demo" / "recording.wav"
N_WINDOWS = 2048
STREAMS = (256, 1024, 4096)
RUNS = 20
N_CLIPS = 2000
CHUNK_SECONDS = 0.1


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="A GPU beside the CPU of the same machine.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    rows = []
    for device in dict.fromkeys(("cpu", args.device)):
        try:
            rows.append(measure(device))
        except ModelError as error:
            print(f"{device}: {error}", file=sys.stderr)
            return 1
    table = _table(rows)
    print(table)
    if args.output:
        args.output.write_text(f"Made by `benchmarks/gpu.sh`.\n\n{table}\n")
    return 0


def measure(device: str) -> dict[str, str]:
    """One column of the table.

    Raises:
        ModelError: the device cannot run the model, or fails its golden check.
    """
    began = time.perf_counter()
    model = load_model(device=device)
    found = {"": model.provider, "golden check": f"passed, with loading {time.perf_counter() - began:.1f} s"}
    found["largest difference from the CPU, float32"] = f"{_difference(model.posteriors):.1e}"
    if device == "cuda":
        found["largest difference from the CPU, TF32"] = f"{_difference(_with_tf32()):.1e}"
    for n in STREAMS:
        seconds = _run_seconds(model, n)
        found[f"a run of {n} streams, ms"] = f"{1000 * seconds:.1f}"
        found[f"streams in real time, by runs of {n}"] = f"{n * CHUNK_SECONDS / seconds:.0f}"
    found["labelling, files a second in one process"] = f"{_files_a_second(model):.0f}"
    found["first event after the start, s"] = f"{_first_event_seconds(device):.1f}"
    return found


def _windows(model: Model) -> np.ndarray:
    card = model.card
    return golden_windows(1, N_WINDOWS, card.window_frames, card.frontend)


def _difference(posteriors: Callable[[np.ndarray], np.ndarray]) -> float:
    reference = load_model(device="cpu")
    windows = _windows(reference)
    return float(np.max(np.abs(posteriors(windows) - reference.posteriors(windows))))


def _with_tf32() -> Callable[[np.ndarray], np.ndarray]:
    session = ort.InferenceSession(DEFAULT_MODEL, providers=[CUDA], provider_options=[{"use_tf32": "1"}])
    [name] = [one.name for one in session.get_inputs()]
    return lambda windows: session.run(None, {name: windows})[0]


def _run_seconds(model: Model, n_streams: int) -> float:
    """Median time in which each of some streams takes a stride."""
    batch = StreamBatch(model)
    spotters = [Spotter(model, 16000, batch=batch) for _ in range(n_streams)]
    random = np.random.default_rng(0)
    samples = (0.05 * random.standard_normal((n_streams, round(16000 * CHUNK_SECONDS)))).astype(np.float32)
    seconds = []
    for run in range(RUNS + 10):  # the first second fills the windows
        began = time.perf_counter()
        chunks = {one.row: one.resample(samples[n]) for n, one in enumerate(spotters)}
        for _ in batch.process(chunks):
            pass
        if run >= 10:
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _files_a_second(model: Model) -> float:
    with tempfile.TemporaryDirectory() as folder:
        random = np.random.default_rng(0)
        clips = []
        for n in range(N_CLIPS):
            clips.append(Clip(f"{n}.wav".encode()))
            soundfile.write(Path(folder) / f"{n}.wav", 0.1 * random.standard_normal(16000), 16000, subtype="PCM_16")
        label = Labeller(model, Folder(Path(folder)), 1)
        label(clips[:64])
        began = time.perf_counter()
        label(clips)
        return N_CLIPS / (time.perf_counter() - began)


def _first_event_seconds(device: str) -> float:
    """From the start of the process to the first detection in a recording that is read as fast as possible."""
    command = [sys.executable, "-m", "kwsd", "spot", "--device", device, str(RECORDING)]
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline()
        seconds = time.perf_counter() - began
        process.kill()
    return seconds


def _table(columns: list[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [[name, *(column.get(name, "–") for column in columns)] for name in names]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    sys.exit(main())
