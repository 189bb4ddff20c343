"""Measures the cost of kwsd on this machine in about a minute: `python -m benchmarks.cost`."""

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from kwsd.audio import FloatArray
from kwsd.client import subscribe
from kwsd.commands.label import JOB_CLIPS, label_corpus
from kwsd.core.decision import Decision, thresholds_of
from kwsd.core.frontend import frames_of, log_spectra
from kwsd.core.model import Model, load_model
from kwsd.core.stream_batch import StreamBatch
from kwsd.corpus.folder import Folder
from kwsd.errors import KwsdError
from kwsd.protocol.events import SourceUp

_SECONDS = 20
_LIVE_SECONDS = 5
_ROUNDS = 5
_MANY = 256
_CLIPS_PER_CORE = 2048


def bench(path: Path | None, device: str) -> Iterator[str]:
    """Measure, and yield each line of the table when it is ready.

    Raises:
        ModelError: as `load_model`.
    """
    model = load_model(path, device)
    n_cores = len(os.sched_getaffinity(0))
    yield f"{model.card.name} on {model.provider}, {len(model.card.keywords)} keywords, {n_cores} cores"
    yield ""
    yield _line("one live stream", "CPU ms for 1 s", "in real time")
    stride_ms = model.card.stride_seconds * 1000
    yield _cost(f"a decision every {stride_ms:g} ms", model, 1)
    yield _cost_in_real_time("the same, sleeping between strides", model)
    n_frames = round(model.card.stride_frames / 5)
    yield _cost(f"a decision every {stride_ms / 5:g} ms", load_model(path, device, n_frames), 1)
    yield _cost(f"{_MANY} streams side by side, each", model, _MANY)
    yield ""
    yield "CPU time of one live stream: " + ", ".join(f"{name} {share:.0%}" for name, share in _shares(model).items())
    yield ""
    yield f"{_files_per_second(model):.0f} one-second clips labelled per second, on all cores"
    yield f"{_ready_seconds(model, device):.2f} s from the start of a daemon until it accepts audio"


def _line(what: str, *values: str) -> str:
    return f"{what:<36}" + "".join(f"{value:>18}" for value in values)


def _cost(what: str, model: Model, n_streams: int) -> str:
    """Return a line: CPU time per second of each stream, and how many streams one thread can process in real time."""
    seconds = max(2, _SECONDS // n_streams)
    chunks, hear = _streams(model, n_streams, seconds)
    cpu, wall = _least(lambda: [hear(chunk) for chunk in chunks])
    per_stream = seconds * n_streams
    return _line(what, f"{1000 * cpu / per_stream:.2f}", f"{per_stream / wall:.0f} streams")


def _cost_in_real_time(what: str, model: Model) -> str:
    """Return a line: CPU time per second of one real-time stream. A core that wakes up is slow: its caches are cold."""
    chunks, hear = _streams(model, 1, _LIVE_SECONDS)
    cpu = 0.0
    for chunk in chunks:
        time.sleep(model.card.stride_seconds)
        began = time.process_time()
        hear(chunk)
        cpu += time.process_time() - began
    return _line(what, f"{1000 * cpu / _LIVE_SECONDS:.2f}")


def _streams(model: Model, n_streams: int, seconds: int) -> tuple[list[FloatArray], Callable[[FloatArray], object]]:
    """Return `seconds` of audio in chunks of one stride, and a function that processes one chunk in all streams."""
    batch = StreamBatch(model)
    rows = [batch.join(thresholds_of(model.card)) for _ in range(n_streams)]
    stride = round(model.card.stride_seconds * model.card.frontend.sample_rate_hz)
    samples = _audio(model, seconds)
    chunks = [samples[start : start + stride] for start in range(0, len(samples), stride)]
    return chunks, lambda chunk: list(batch.process(dict.fromkeys(rows, chunk)))


def _shares(model: Model) -> dict[str, float]:
    """Return the share of each stage in the CPU time for a stride of one stream."""
    params, card = model.card.frontend, model.card
    n_samples = params.n_samples(card.stride_frames)
    frames = frames_of(_audio(model, 2)[None, :n_samples], params)
    features, state = log_spectra(frames, params), model.new_state(1)
    decision, row, end = Decision(card, thresholds_of(card)[None]), np.zeros(1, np.int64), np.array([1])
    posteriors = state.step(features, row)
    batch = StreamBatch(model)
    own = batch.join(thresholds_of(card))
    stride = np.ascontiguousarray(_audio(model, 2)[: card.stride_frames * params.hop_samples])
    stages: dict[str, Callable[[], object]] = {
        "front end": lambda: log_spectra(frames, params),
        "model": lambda: state.step(features, row),
        "decision": lambda: decision.push(row, posteriors, end),
    }
    whole, _ = _least(lambda: [list(batch.process({own: stride})) for _ in range(200)])
    shares = {
        name: _least(lambda run=run: [run() for _ in range(200)])[0] / whole  # type: ignore[misc]
        for name, run in stages.items()
    }
    return shares | {"other Python code": max(0.0, 1 - sum(shares.values()))}


def _files_per_second(model: Model) -> float:
    """Label a folder on every core that this process may use. The start of the workers is not counted."""
    n_cores = len(os.sched_getaffinity(0))
    few, many = n_cores * JOB_CLIPS, n_cores * _CLIPS_PER_CORE
    with tempfile.TemporaryDirectory() as folder:
        clips = Path(folder) / "clips"
        clips.mkdir()
        samples = _audio(model, 16)
        rate_hz = model.card.frontend.sample_rate_hz
        for n in range(16):
            soundfile.write(clips / f"{n}.wav", samples[n * rate_hz : (n + 1) * rate_hz], rate_hz, subtype="PCM_16")
        seconds = []
        n_linked = 16
        for n_clips in (few, many):
            for n in range(n_linked, n_clips):
                os.link(clips / f"{n % 16}.wav", clips / f"{n}.wav")
            n_linked = n_clips
            began = time.perf_counter()
            label_corpus(Folder(clips), Path(folder) / "labels.csv", model)
            seconds.append(time.perf_counter() - began)
        return (many - few) / (seconds[1] - seconds[0])


def _ready_seconds(model: Model, device: str) -> float:
    """Return the time from the start of a daemon until it accepts audio from a program."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as program:
        path, audio = Path(folder) / "kwsd.sock", Path(folder) / "audio.sock"
        options = {"--source": "network", "--audio": audio, "--socket": path, "--model": model.path, "--device": device}
        command = [
            sys.executable,
            "-m",
            "kwsd",
            "run",
            "--quiet",
            *(str(part) for pair in options.items() for part in pair),
        ]
        began = time.perf_counter()
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as daemon:
            try:
                while program.connect_ex(str(audio)) and daemon.poll() is None:
                    time.sleep(0.01)
                events = subscribe(path)
                next(events)
                program.sendall(b'{"stream":"bench"}\n' + bytes(32000))
                next(event for event in events if isinstance(event, SourceUp))
                return time.perf_counter() - began
            finally:
                daemon.kill()


def _audio(model: Model, seconds: int) -> FloatArray:
    """Return noise whose level rises and falls like that of speech, at the model's sample rate."""
    n = np.arange(seconds * model.card.frontend.sample_rate_hz)
    noise = np.modf(n.astype(np.float64) ** 2 * 0.6180339887)[0] - 0.5
    return (noise * (0.02 + 0.2 * np.abs(np.sin(n / 3000)))).astype(np.float32)


def _least(run: Callable[[], object]) -> tuple[float, float]:
    """Return CPU and wall seconds of the round with the least CPU time, after a warm-up round."""
    run()
    rounds = []
    for _ in range(_ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        rounds.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the cost of kwsd on this machine in about a minute.")
    parser.add_argument("--model", type=Path, metavar="FILE", help="ONNX model with its card (default: bundled)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="for the model (%(default)s)")
    args = parser.parse_args()
    try:
        for line in bench(args.model, args.device):
            print(line, flush=True)
    except KwsdError as error:
        raise SystemExit(f"cost: {error}") from None


if __name__ == "__main__":
    main()
