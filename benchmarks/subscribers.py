"""A thousand subscribers and one that never reads: delivery, delay, CPU and memory, beside a plain broadcaster.

    python -m benchmarks.subscribers [--subscribers 1000] [--events 10000] [--rate 20] [-o benchmarks/subscribers.md]

Streams that start and end over the audio socket make the events. The server runs on one core, its
readers on another. The plain broadcaster (`systems/broadcaster.py`) sends lines of the same length,
at the same rate, in the same run. It gets no stuck subscriber, because it would then never end.
Delay is from the event's own time, which is truncated to a millisecond, to its arrival.
"""

import argparse
import json
import os
import resource
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.process import KWSD, cpu_seconds, resident_mb, server

SYSTEMS = Path(__file__).resolve().parent / "systems"


@dataclass
class Readers:
    """Subscribers that read, all in one thread, and what they received."""

    path: Path
    n: int
    next_seq: list[int] = field(default_factory=list)
    n_wrong: int = 0
    delays: list[float] = field(default_factory=list)
    n_lines: int = 0
    stopping: bool = False

    def connect(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._pending = [b""] * self.n
        self.next_seq = [-1] * self.n
        for number in range(self.n):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(self.path))
            connection.setblocking(False)
            self._selector.register(connection, selectors.EVENT_READ, number)

    def read(self) -> None:
        """Read until `stopping` is set."""
        while not self.stopping:
            for key, _ in self._selector.select(0.1):
                self._take(key.data, key.fileobj.recv(2**16), time.time())

    def _take(self, number: int, data: bytes, arrived: float) -> None:
        *lines, self._pending[number] = (self._pending[number] + data).split(b"\n")
        for line in lines:
            event = _parse(line)
            if event["type"] == "hello":
                continue
            self.n_lines += 1
            seq, expected = event.get("seq"), self.next_seq[number]
            self.n_wrong += seq is None or (expected >= 0 and seq != expected)  # lagged and gap have no seq
            if seq is not None:
                self.next_seq[number] = seq + 1
                if number % 10 == 0:
                    self.delays.append(arrived - event["at"])


@lru_cache
def _parse(line: bytes) -> dict[str, Any]:
    """Parse an event and add its time in seconds. All subscribers get the same lines, so each is parsed only once."""
    event = json.loads(line)
    if "time" in event:
        event["at"] = datetime.fromisoformat(event["time"]).timestamp()
    return event


@dataclass
class Measured:
    """Figures of one server.

    Attributes:
        n_wrong: lines that were not the next event.
        cpu_us: CPU time per delivery, in microseconds.
        delays_ms: delays of a tenth of the subscribers.
        kib: memory per subscriber, in KiB: once all are connected, and at the end.
    """

    n_delivered: int
    n_wrong: int
    cpu_us: float
    delays_ms: np.ndarray
    kib: tuple[float, float]


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="Many subscribers, beside a plain broadcaster.")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--events", type=int, default=10000)
    parser.add_argument("--rate", type=float, default=20.0, help="events a second (%(default)s)")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ours = measure_kwsd(args.subscribers, args.events, args.rate)
    plain = measure_plain(args.subscribers, args.events, args.rate)
    table = _table({"kwsd, one more stuck": ours, "plain asyncio broadcaster": plain}, args)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")
    return 0 if ours.n_wrong == 0 and ours.n_delivered == args.subscribers * args.events else 1


def measure_kwsd(n: int, n_events: int, rate: float) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path, audio = Path(folder) / "kwsd.sock", Path(folder) / "audio.sock"
        with server(*KWSD, "--source", "network", "--audio", audio, "--socket", path, ready=audio) as daemon:
            stuck = socket.socket(socket.AF_UNIX)

            def say(number: int) -> None:
                """Start a stream, or end it."""
                if number % 2 == 0:
                    say.stream = socket.socket(socket.AF_UNIX)
                    say.stream.connect(str(audio))
                    say.stream.sendall(b'{"stream":"room %d of many"}\n' % (number % 100))
                else:
                    say.stream.close()

            return _measure(daemon, path, n, n_events, rate, say, lambda: stuck.connect(str(path)))


def measure_plain(n: int, n_events: int, rate: float) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.sock"
        command = (sys.executable, SYSTEMS / "broadcaster.py", path)
        with server(*command, ready=path, stdin=subprocess.PIPE) as plain:

            def say(number: int) -> None:
                now = datetime.now().astimezone().isoformat(timespec="milliseconds")
                event = {"type": "source_up", "seq": number, "boot_id": "0" * 32, "time": now, "stream": "a room"}
                plain.stdin.write(json.dumps(event | {"rate_hz": 16000}).encode() + b"\n")
                plain.stdin.flush()

            return _measure(plain, path, n, n_events, rate, say, lambda: None)


def _measure(process, path, n, n_events, rate, say, crowd) -> Measured:
    before = resident_mb(process)
    readers = Readers(path, n)
    crowd()
    readers.connect()
    reading = threading.Thread(target=readers.read)
    reading.start()
    time.sleep(1)
    connected = resident_mb(process)
    cpu, began = cpu_seconds(process), time.monotonic()
    for number in tqdm(range(n_events), desc=path.stem, unit=" events", disable=None, leave=False):
        time.sleep(max(0, began + number / rate - time.monotonic()))
        say(number)
    deadline = time.monotonic() + 10
    while readers.n_lines < n * n_events and time.monotonic() < deadline:
        time.sleep(0.05)
    cpu = cpu_seconds(process) - cpu
    end = resident_mb(process)
    readers.stopping = True
    reading.join()
    kib = ((connected - before) / n * 1e6 / 1024, (end - before) / n * 1e6 / 1024)
    return Measured(
        readers.n_lines, readers.n_wrong, cpu / max(1, readers.n_lines) * 1e6, np.array(readers.delays) * 1000, kib
    )


def _table(measured: dict[str, Measured], args: argparse.Namespace) -> str:
    lines = [
        f"{args.subscribers} subscribers, {args.events} events, {args.rate:g} a second.",
        "",
        "| | delivered | wrong or lost | delay p50 / p99 ms | µs CPU a delivery | KiB a subscriber, at the end |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in measured.items():
        p50, p99 = np.quantile(one.delays_ms, (0.5, 0.99))
        lines.append(
            f"| {name} | {one.n_delivered} | {one.n_wrong} | {p50:.1f} / {p99:.1f} | {one.cpu_us:.1f} "
            f"| {one.kib[0]:.1f}, {one.kib[1]:.1f} |"
        )
    ours, plain = measured.values()
    return "\n".join([*lines, "", f"CPU beside the plain broadcaster: {ours.cpu_us / plain.cpu_us:.2f}"])


if __name__ == "__main__":
    sys.exit(main())
