"""Feed nearly valid input to every reader of recordings and messages.

    python tests/fuzz.py [--inputs 100000] [--seed 1] [wav|requests|headers|events|tokens …]

Inputs are mutations of valid ones: bits, bytes and numbers are changed; pieces are removed, doubled,
moved or taken from another input. The reader must accept each input or refuse it with its own error.
Any other exception, or more than a second, is a finding and is printed with its input.
"""

import argparse
import io
import json
import signal
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from kwsd.errors import AudioError
from kwsd.protocol.events import parse_event
from kwsd.protocol.subscription import Subscription, parse_token
from kwsd.sources.header import Header
from kwsd.sources.recording import read_recording

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(seeds: list[bytes], random: np.random.Generator) -> bytes:
    """Return one of the seeds with one to four changes."""
    data = bytearray(seeds[random.integers(len(seeds))])
    for _ in range(random.integers(1, 5)):
        at = int(random.integers(len(data) + 1))
        length = int(random.integers(1, 9))
        kind = random.integers(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(random.integers(8))
        elif kind == 1 and at < len(data):
            data[at] = int(random.integers(256))
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            other = seeds[random.integers(len(seeds))]
            begin = int(random.integers(len(other) + 1))
            data[at : at + length] = other[begin : begin + length]
        elif kind == 5:
            data[at : at + 4] = struct.pack("<I", _INTERESTING[random.integers(len(_INTERESTING))])
        else:
            del data[at:]
    return bytes(data)


def wav_seeds() -> list[bytes]:
    """Small files in every readable format, each with its header first."""
    samples = np.sin(np.arange(80) / 3).astype(np.float32) * 0.5
    seeds = []
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"):
        for kind in ("WAV", "WAVEX", "AIFF", "FLAC"):
            if soundfile.check_format(kind, subtype):
                out = io.BytesIO()
                soundfile.write(out, np.stack([samples, samples], 1), 16000, format=kind, subtype=subtype)
                seeds.append(out.getvalue())
    return seeds


def read_wav(folder: Path) -> Callable[[bytes], object]:
    """Return a function that writes bytes to a file and reads it as a recording."""
    path = folder / "fuzz.wav"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        samples, rate_hz = read_recording(path)
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert np.isfinite(samples).all()
        assert rate_hz > 0

    return read


def lines(*objects: object) -> list[bytes]:
    return [json.dumps(one).encode() for one in objects]


SINCE = {"boot_id": "e298e53c829149eba3752f306e845c5e", "seq": 117}
REQUESTS = lines(
    {"type": "subscribe"},
    {"type": "subscribe", "labels": ["stop"], "streams": ["hall", "yard"], "since": SINCE, "scores": True},
)
HEADERS = lines(
    {"stream": "hall"},
    {"stream": "hall", "rate_hz": 48000, "encoding": "f32le", "channels": 2, "live": False},
)
EVENTS = lines(
    {"type": "lagged", "n_lost": 3},
    {"type": "source_down", "seq": 1, "boot_id": "b", "time": "t", "stream": "a", "reason": "r", "retry_seconds": None},
)
TOKENS = lines({"type": "authenticate", "token": "correct horse battery staple"})


def fuzz(read: Callable[[bytes], object], seeds: list[bytes], refuses: type[Exception], n: int, seed: int) -> list[str]:
    """Read n mutated inputs; returns one line per finding."""
    random = np.random.default_rng(seed)
    findings = []
    for seed_ in seeds:
        read(seed_)  # valid input is accepted
    for _ in range(n):
        data = mutate(seeds, random)
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        try:
            read(data)
        except refuses as error:
            if "\n" in str(error):
                findings.append(f"message of more than one line: {error!r} for {data!r}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            findings.append(f"{error!r} for {data!r}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return findings


def main() -> int:
    """The command. Returns its exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the readers of recordings and messages.")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("what", nargs="*", metavar="WHAT")
    args = parser.parse_args()
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, (read, seeds, refuses) in targets(Path(folder)).items():
            if args.what and name not in args.what:
                continue
            findings = fuzz(read, seeds, refuses, args.inputs, args.seed)
            found += len(findings)
            print(f"{name}: {args.inputs} inputs, {len(findings)} findings", flush=True)
            print("\n".join(findings[:10]))
    return 1 if found else 0


def targets(folder: Path) -> dict[str, tuple[Callable[[bytes], object], list[bytes], type[Exception]]]:
    """The targets by name: a reader, valid inputs, and the error that refuses an input."""
    return {
        "wav": (read_wav(folder), wav_seeds(), AudioError),
        "requests": (Subscription.parse, REQUESTS, ValueError),
        "headers": (Header.parse, HEADERS, ValueError),
        "events": (parse_event, EVENTS, ValueError),
        "tokens": (parse_token, TOKENS, ValueError),
    }


def _too_long(*_: object) -> None:
    raise TimeoutError("took more than a second")


signal.signal(signal.SIGALRM, _too_long)

if __name__ == "__main__":
    sys.exit(main())
