"""Measures one system in its own process, on one core, with one recording.

This module runs in the environments of the peers, so it imports only the standard library.
"""

import argparse
import json
import os
import time
import wave
from collections.abc import Callable
from pathlib import Path

_WARM_SECONDS = 5


def measure(load: Callable[[], Callable[[bytes], object]], chunk_samples: int) -> None:
    """Load a system, process the recording named on the command line, and print a line of JSON.

    Args:
        load: returns a function that processes a chunk of 16-bit samples at 16 kHz.
        chunk_samples: the number of samples in a chunk.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("recording", type=Path)
    parser.add_argument("model", nargs="?", help="model file, for systems that take one")
    parser.add_argument("--repeat", type=int, default=4)
    args = parser.parse_args()
    with wave.open(str(args.recording)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (16000, 1, 2):
            raise SystemExit(f"{args.recording}: must have 16 kHz, one channel, 16 bits")
        recording = file.readframes(file.getnframes())
    samples = recording * args.repeat
    began = time.perf_counter()
    hear = load()
    load_seconds = time.perf_counter() - began
    _hear_all(hear, recording[: _WARM_SECONDS * 32000], chunk_samples)
    began = time.process_time()
    n_bytes = _hear_all(hear, samples, chunk_samples)
    cpu_seconds = time.process_time() - began
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    print(
        json.dumps(
            {
                "cpu_ms": 1000 * cpu_seconds / (n_bytes / 32000),
                "load_seconds": load_seconds,
                "resident_mb": resident_pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
            }
        )
    )


def _hear_all(hear: Callable[[bytes], object], samples: bytes, chunk_samples: int) -> int:
    n_bytes = len(samples) // (2 * chunk_samples) * 2 * chunk_samples
    for start in range(0, n_bytes, 2 * chunk_samples):
        hear(samples[start : start + 2 * chunk_samples])
    return n_bytes
