"""Hundreds of streams in one daemon in real time: CPU, memory, latency; does each get the same detections as alone?

    python -m benchmarks.streams [--streams 256] [--seconds 60] [--device cpu|cuda] [-o benchmarks/streams.md]

The daemon runs on one core. The sender of the audio (over the audio socket) and the subscriber run
on another. Every stream is the bundled recording, repeated from a different offset, in chunks of
100 ms with a phase of its own. Latency is the time from sending a chunk to the arrival of the
detection whose window it completes.
"""

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.process import KWSD, cpu_seconds, resident_mb, server
from kwsd.client import subscribe
from kwsd.core.model import load_model
from kwsd.core.spotter import Spotter
from kwsd.protocol.events import DetectionEvent, SourceDown
from kwsd.service.detector import detection_event
from kwsd.sources.recording import read_recording

RECORDING = Path(__file__).resolve().parents[1] / "demo" / "recording.wav"
CHUNK_SAMPLES = 1600
CHUNK_SECONDS = 0.1


@dataclass
class Measured:
    """Figures of one daemon. `cpu_ms` is per second of each stream; `n_same` streams had the same detections alone."""

    n_streams: int
    cpu_ms: float
    resident_mb: float
    latencies_ms: list[float]
    n_same: int


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="Many streams in one daemon, in real time.")
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    samples, _ = read_recording(RECORDING)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    measured = [measure(n, samples, args.seconds, args.device) for n in (1, args.streams)]
    table = _table(measured)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")
    return 0


def measure(n_streams: int, samples: np.ndarray, seconds: int, device: str) -> Measured:
    """Run a daemon, send it the streams, and measure its process from outside."""
    n_chunks = round(seconds / CHUNK_SECONDS)
    streams = {f"room{n}": _stream(samples, n, n_chunks) for n in range(n_streams)}
    with tempfile.TemporaryDirectory() as folder:
        events, audio = Path(folder) / "events.sock", Path(folder) / "audio.sock"
        arguments = ("--source", "network", "--audio", audio, "--socket", events, "--device", device)
        with server(*KWSD, *arguments, ready=audio) as daemon:
            heard: list[tuple[float, DetectionEvent]] = []
            listener = threading.Thread(target=_listen, args=(events, n_streams, heard))
            listener.start()
            before = cpu_seconds(daemon)
            sent = _send(audio, streams, n_chunks)
            memory_mb, seconds_of_cpu = resident_mb(daemon), cpu_seconds(daemon) - before
            listener.join()
    within = [(arrived, event) for arrived, event in heard if event.end_seconds <= seconds]  # skip the final silence
    latencies = [arrived - sent[event.stream][_chunk_of(event)] for arrived, event in within]
    told: dict[str, list[tuple[object, ...]]] = {name: [] for name in streams}
    for _, event in heard:
        told[event.stream].append(_what(event))
    model = load_model(device="cpu")
    n_same = sum(told[name] == _alone(model, name, stream) for name, stream in streams.items())
    cpu_ms = 1000 * seconds_of_cpu / (seconds * n_streams)
    return Measured(n_streams, cpu_ms, memory_mb, [1000 * one for one in latencies], n_same)


def _stream(samples: np.ndarray, n: int, n_chunks: int) -> np.ndarray:
    """Return 16-bit samples: the recording, repeated from an offset that grows with n. Shape: -> (n_chunks, chunk)."""
    rolled = np.roll(samples, -n * 7919)
    return (np.resize(rolled, n_chunks * CHUNK_SAMPLES) * 32768).astype("<i2").reshape(n_chunks, CHUNK_SAMPLES)


def _send(path: Path, streams: dict[str, np.ndarray], n_chunks: int) -> dict[str, list[float]]:
    """Send all streams in real time. Return when each chunk was sent."""
    connections = {}
    for name in streams:
        connections[name] = socket.socket(socket.AF_UNIX)
        connections[name].connect(str(path))
        connections[name].sendall(json.dumps({"stream": name}).encode() + b"\n")
    phases = np.sort(np.random.default_rng(0).uniform(0, CHUNK_SECONDS, len(streams)))
    sent: dict[str, list[float]] = {name: [] for name in streams}
    began = time.monotonic() + 0.5
    for index in range(n_chunks):
        for (name, connection), phase in zip(connections.items(), phases, strict=True):
            time.sleep(max(0.0, began + index * CHUNK_SECONDS + phase - time.monotonic()))
            sent[name].append(time.monotonic())
            connection.sendall(streams[name][index].tobytes())
    for connection in connections.values():
        connection.close()
    return sent


def _listen(path: Path, n_streams: int, heard: list[tuple[float, DetectionEvent]]) -> None:
    """Subscribe until all streams have ended."""
    for event in subscribe(path):
        if isinstance(event, DetectionEvent):
            heard.append((time.monotonic(), event))
        elif isinstance(event, SourceDown):
            n_streams -= 1
            if not n_streams:
                return


def _chunk_of(event: DetectionEvent) -> int:
    """Return the index of the chunk that completed the window."""
    return -(-round(event.end_seconds * 16000) // CHUNK_SAMPLES) - 1


def _alone(model: object, name: str, stream: np.ndarray) -> list[tuple[object, ...]]:
    spotter = Spotter(model, 16000)  # type: ignore[arg-type]
    detections = spotter.push(stream.ravel().astype(np.float32) / 32768) + spotter.flush()
    return [_what(detection_event(one, name)) for one in detections]


def _what(event: DetectionEvent) -> tuple[object, ...]:
    return event.label, event.score, event.end_seconds, event.loudness_dbfs


def _table(measured: list[Measured]) -> str:
    alone, many = measured
    growth_kib = (many.resident_mb - alone.resident_mb) * 1e6 / 1024 / max(1, many.n_streams - alone.n_streams)
    lines = [
        "| streams | CPU ms for 1 s of each | resident MB | latency ms: median, p99 | told what they would be alone |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.n_streams} | {one.cpu_ms:.2f} | {one.resident_mb:.0f} | {np.median(one.latencies_ms):.0f}, "
        f"{np.percentile(one.latencies_ms, 99):.0f} | {one.n_same} |"
        for one in measured
    ]
    return "\n".join([*lines, "", f"A stream more takes {growth_kib:.0f} KiB."])


if __name__ == "__main__":
    sys.exit(main())
