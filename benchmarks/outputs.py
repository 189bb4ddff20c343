"""What the live page, MQTT and Wyoming cost a daemon with one stream: without a client, and with open pages.

    python -m benchmarks.outputs [--seconds 60] [--pages 20] [-o benchmarks/outputs.md]

The bundled recording plays in real time, again and again, over the audio socket. CPU is that of the
whole process, resident memory is read at the end. Delay is the time from sending a chunk to the
arrival of the detection whose window it completes. Each row runs for itself, on one core; MQTT
needs mosquitto, and is left out without it.
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
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.streams import CHUNK_SAMPLES, CHUNK_SECONDS, RECORDING
from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent
from kwsd.sources.recording import read_recording

BROKER = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")
TICKS = os.sysconf("SC_CLK_TCK")
WARM_UP_SECONDS = 3.0


def main() -> int:
    """Run the command and return its exit status."""
    parser = argparse.ArgumentParser(description="What the outputs cost.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    args = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = {
        "the event socket alone": measure({}, 0, args.seconds),
        "everything on, no client": measure(everything(), 0, args.seconds),
        f"everything on, {args.pages} open pages": measure(everything(), args.pages, args.seconds),
    }
    table = _table(rows)
    print(table)
    if args.output:
        args.output.write_text(f"Made by `python -m benchmarks.outputs`.\n\n{table}\n")
    return 0


def everything() -> dict[str, object]:
    """All outputs, on free ports."""
    keys: dict[str, object] = {"http": f"127.0.0.1:{_port()}", "wyoming": f"tcp://127.0.0.1:{_port()}"}
    return keys | {"mqtt": {"host": "127.0.0.1", "port": _port()}} if BROKER else keys


def measure(keys: dict, n_pages: int, seconds: int) -> tuple[float, float, list[float]]:
    """CPU in ms for each second, resident MB, and delays in ms."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        audio, events, config = folder / "audio.sock", folder / "events.sock", folder / "kwsd.yaml"
        config.write_text(json.dumps({"audio": str(audio), "source": "network", **keys}))
        if "mqtt" in keys:
            stack.callback(_start([BROKER, "-p", str(keys["mqtt"]["port"])]).kill)
        daemon = _start([sys.executable, "-m", "kwsd", "run", "--config", str(config), "--socket", str(events)])
        stack.callback(daemon.kill)
        os.sched_setaffinity(daemon.pid, {min(os.sched_getaffinity(daemon.pid) | {0})})
        while not audio.exists():
            time.sleep(0.1)
        for _ in range(n_pages):
            _open_page(stack, int(str(keys["http"]).rpartition(":")[2]))
        sent: list[float] = []
        threading.Thread(target=_play, args=[audio, seconds + WARM_UP_SECONDS, sent], daemon=True).start()
        time.sleep(WARM_UP_SECONDS)
        before = _cpu_seconds(daemon.pid)
        delays = _listen(events, seconds, sent)
        return 1000 * (_cpu_seconds(daemon.pid) - before) / seconds, _resident_mb(daemon.pid), delays


def _start(command: list) -> subprocess.Popen:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _open_page(stack: ExitStack, port: int) -> None:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
    connection.sendall(b"GET /events?scores=1&near_misses=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def read() -> None:
        while connection.recv(65536):
            pass

    threading.Thread(target=read, daemon=True).start()


def _play(path: Path, seconds: float, sent: list[float]) -> None:
    """Send the recording in real time; `sent` gets the time of each chunk."""
    samples, rate_hz = read_recording(RECORDING)
    data = np.round(samples * 32767).astype("<i2")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps({"stream": "hall", "rate_hz": rate_hz}).encode() + b"\n")
        began = time.monotonic()
        for n in range(round(seconds / CHUNK_SECONDS)):
            time.sleep(max(0.0, began + n * CHUNK_SECONDS - time.monotonic()))
            at = n * CHUNK_SAMPLES % len(data)
            connection.sendall(np.take(data, range(at, at + CHUNK_SAMPLES), mode="wrap").tobytes())
            sent.append(time.monotonic())


def _listen(path: Path, seconds: float, sent: list[float]) -> list[float]:
    delays: list[float] = []
    deadline = time.monotonic() + seconds

    def take() -> None:
        for event in subscribe(path):
            if isinstance(event, DetectionEvent):
                chunk = min(len(sent), round(event.end_seconds / CHUNK_SECONDS)) - 1  # the last one of its window
                delays.append(1000 * (time.monotonic() - sent[chunk]))

    threading.Thread(target=take, daemon=True).start()
    time.sleep(max(0.0, deadline - time.monotonic()))
    return delays


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _table(rows: dict[str, tuple[float, float, list[float]]]) -> str:
    lines = [
        "| daemon with one stream | CPU, ms a second | ratio | resident MB | more MB | delay, median and p95, ms |"
    ]
    lines.append("|---|---|---|---|---|---|")
    first = next(iter(rows.values()))
    for name, (cpu, resident, delays) in rows.items():
        delay = f"{np.median(delays):.0f}, {np.percentile(delays, 95):.0f}" if delays else "no detection"
        ratio, more = cpu / first[0], resident - first[1]
        lines.append(f"| {name} | {cpu:.1f} | {ratio:.2f} | {resident:.0f} | {more:+.0f} | {delay} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
