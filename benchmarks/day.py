"""Feeds the daemon a day of audio as fast as possible: does it hold more at the end than after an hour?

    python -m benchmarks.day [--hours 24] [-o benchmarks/day.md]

The daemon's standard input gets the bundled recording repeatedly, with a new second of noise after
each. One subscriber stays; another connects and leaves every hour.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.process import KWSD, resident_mb, server
from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent
from kwsd.sources.recording import read_recording

RECORDING = Path(__file__).resolve().parents[1] / "demo" / "recording.wav"
RATE_HZ = 16000


@dataclass
class Size:
    """Resources that a process holds."""

    resident_mb: float
    n_descriptors: int
    n_threads: int

    @classmethod
    def of(cls, process: subprocess.Popen[bytes]) -> "Size":
        proc = Path(f"/proc/{process.pid}")
        n_descriptors, n_threads = (len(list((proc / name).iterdir())) for name in ("fd", "task"))
        return cls(resident_mb(process), n_descriptors, n_threads)


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="A day of audio as fast as possible.")
    parser.add_argument("--hours", type=int, default=24)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    began = time.monotonic()
    sizes, n_heard = measure(args.hours)
    minutes = (time.monotonic() - began) / 60
    lines = ["| after | resident MB | descriptors | threads |", "|---|---|---|---|"]
    for hour, size in sizes.items():
        lines.append(f"| {hour} h | {size.resident_mb:.1f} | {size.n_descriptors} | {size.n_threads} |")
    lines += ["", f"{args.hours} hours of audio in {minutes:.1f} minutes, {n_heard} detections."]
    print("\n".join(lines))
    if args.output:
        args.output.write_text("\n".join(lines) + "\n")
    first, last = sizes[1], sizes[args.hours]
    same = (first.n_descriptors, first.n_threads) == (last.n_descriptors, last.n_threads)
    return 0 if same and last.resident_mb - first.resident_mb <= 2 else 1


def measure(n_hours: int) -> tuple[dict[int, Size], int]:
    """Return the daemon's size after each hour, and the number of detections that its subscriber got."""
    heard = []

    def follow(path: Path) -> None:
        heard.extend(event for event in subscribe(path, reconnect=False) if isinstance(event, DetectionEvent))

    random = np.random.default_rng(1)
    samples = (read_recording(RECORDING)[0] * 32767).astype("<i2")
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kwsd.sock"
        arguments = ("--source", "-", "--socket", path)
        with server(*KWSD, *arguments, ready=path, stdin=subprocess.PIPE) as daemon:
            assert daemon.stdin
            following = threading.Thread(target=follow, args=(path,))
            following.start()
            for hour in tqdm(range(1, n_hours + 1), unit=" h", disable=None, leave=False):
                next(subscribe(path))
                n_left = 3600 * RATE_HZ
                while n_left > 0:
                    noise = random.normal(0, 30, RATE_HZ).astype("<i2")
                    piece = np.concatenate([samples, noise])[:n_left]
                    daemon.stdin.write(piece.tobytes())
                    n_left -= len(piece)
                sizes[hour] = Size.of(daemon)
            daemon.stdin.close()
            following.join()
    return sizes, len(heard)


if __name__ == "__main__":
    sys.exit(main())
