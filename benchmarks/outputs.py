"""What the live page, MQTT and Wyoming cost a daemon with one stream: without a client, and with open pages.

    python -m benchmarks.outputs [--seconds 30] [--rounds 6] [--pages 20] [-o benchmarks/outputs.md]

The bundled recording plays in real time, again and again, over the audio socket. CPU is that of the
whole process, resident memory is read at the end. Delay is the time from sending a chunk to the
arrival of the detection whose window it completes. All daemons hear the same on one core, one
shortly after the other, in an order that changes with each round; CPU and ratio are the medians of
the rounds. MQTT needs mosquitto, and is left out without it.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np

from benchmarks.process import KWSD, cpu_seconds, resident_mb, server
from benchmarks.streams import CHUNK_SAMPLES, CHUNK_SECONDS, RECORDING
from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent
from kwsd.sources.recording import read_recording

BROKER = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
WARM_UP_SECONDS = 3.0


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="What the outputs cost.")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with ExitStack() as stack:
        daemons = [
            Daemon(stack, "the event socket alone", {}),
            Daemon(stack, "everything on, no client", everything()),
            Daemon(stack, f"everything on, {args.pages} open pages", everything(), args.pages),
        ]
        for turn in range(args.rounds):
            measure(daemons, args.seconds, turn)
        table = _table(daemons)
    print(table)
    if args.output:
        args.output.write_text(f"Made by `python -m benchmarks.outputs`.\n\n{table}\n")
    return 0


def everything() -> dict[str, object]:
    """All outputs, on free ports."""
    keys: dict[str, object] = {"http": f"127.0.0.1:{_port()}", "wyoming": f"tcp://127.0.0.1:{_port()}"}
    return keys | {"mqtt": {"host": "127.0.0.1", "port": _port()}} if BROKER else keys


class Daemon:
    """A daemon, and its figures: CPU in ms for each second, resident MB, delays in ms."""

    def __init__(self, stack: ExitStack, name: str, keys: dict, n_pages: int = 0) -> None:
        self.name, self.resident_mb = name, 0.0
        self.cpu_ms: list[float] = []  # of each round
        self.delays: list[float] = []
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.audio, self.events, config = folder / "audio.sock", folder / "events.sock", folder / "kwsd.yaml"
        config.write_text(json.dumps({"audio": str(self.audio), "source": "network", **keys}))
        if "mqtt" in keys:
            broker = subprocess.Popen([BROKER, "-p", str(keys["mqtt"]["port"])], stderr=subprocess.DEVNULL)
            stack.callback(broker.kill)
        command = (*KWSD, "--config", config, "--socket", self.events)
        self.process = stack.enter_context(server(*command, ready=self.audio))
        for _ in range(n_pages):
            _open_page(stack, int(str(keys["http"]).rpartition(":")[2]))
        self.sent: list[float] = []  # when each chunk of this round was sent
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for event in subscribe(self.events):
            if isinstance(event, DetectionEvent):
                chunk = min(len(self.sent), round(event.end_seconds / CHUNK_SECONDS)) - 1  # the last one of its window
                self.delays.append(1000 * (time.monotonic() - self.sent[chunk]))


def measure(daemons: list[Daemon], seconds: int, turn: int) -> None:
    """Play the same audio to all daemons."""
    players = []
    for n, one in enumerate(daemons):
        phase = (n + turn) % len(daemons) * CHUNK_SECONDS / len(daemons)
        one.sent = []
        arguments = [one.audio, f"hall {turn}", seconds + WARM_UP_SECONDS + 1, phase, one.sent]
        players.append(threading.Thread(target=_play, args=arguments, daemon=True))
        players[-1].start()
    time.sleep(WARM_UP_SECONDS)
    before = [cpu_seconds(one.process) for one in daemons]
    time.sleep(seconds)
    for one, earlier in zip(daemons, before, strict=True):
        one.cpu_ms.append(1000 * (cpu_seconds(one.process) - earlier) / seconds)
        one.resident_mb = resident_mb(one.process)
    for player in players:
        player.join()


def _open_page(stack: ExitStack, port: int) -> None:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection.sendall(b"GET /events?scores=1&near_misses=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def read() -> None:
        with suppress(OSError):  # closed at the end
            while connection.recv(65536):
                pass

    threading.Thread(target=read, daemon=True).start()


def _play(path: Path, stream: str, seconds: float, phase: float, sent: list[float]) -> None:
    """Send the recording in real time; `sent` gets the time of each chunk."""
    samples, rate_hz = read_recording(RECORDING)
    data = np.round(samples * 32767).astype("<i2")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps({"stream": stream, "rate_hz": rate_hz}).encode() + b"\n")
        began = time.monotonic() + phase
        for n in range(round(seconds / CHUNK_SECONDS)):
            time.sleep(max(0.0, began + n * CHUNK_SECONDS - time.monotonic()))
            at = n * CHUNK_SAMPLES % len(data)
            connection.sendall(np.take(data, range(at, at + CHUNK_SAMPLES), mode="wrap").tobytes())
            sent.append(time.monotonic())


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _table(daemons: list[Daemon]) -> str:
    lines = [
        "| daemon with one stream | CPU, ms a second | ratio | resident MB | more MB | delay, median and p95, ms |"
    ]
    lines.append("|---|---|---|---|---|---|")
    first = daemons[0]
    for one in daemons:
        delay = f"{np.median(one.delays):.0f}, {np.percentile(one.delays, 95):.0f}" if one.delays else "no detection"
        cpu_ms, more = float(np.median(one.cpu_ms)), one.resident_mb - first.resident_mb
        ratio = float(np.median(np.divide(one.cpu_ms, first.cpu_ms)))
        lines.append(f"| {one.name} | {cpu_ms:.1f} | {ratio:.2f} | {one.resident_mb:.0f} | {more:+.0f} | {delay} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
