"""The program of `make run`: starts the daemon, subscribes as any program would, and prints the events.

python demo/hear.py [SOURCE]    a recording (demo/recording.wav), microphone, or - for raw PCM

The truth of the bundled recording is in recording.json. With that recording, the summary says how
many of its keywords were heard within a second of their end.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kwsd.client import subscribe
from kwsd.errors import SocketError
from kwsd.protocol.events import DetectionEvent, Event, Goodbye
from kwsd.protocol.text import readable

IN_TIME_SECONDS = 1.0
RECORDING = Path(__file__).resolve().with_name("recording.wav")
TRUTH = RECORDING.with_suffix(".json")


def main() -> int:
    """Run the demo and return the daemon's exit status."""
    source = sys.argv[1] if len(sys.argv) > 1 else str(RECORDING)
    is_bundled = Path(source).resolve() == RECORDING
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        socket = Path(folder) / "kwsd.sock"
        command = [sys.executable, "-m", "kwsd", "run", "--quiet", "--source", source, "--socket", str(socket)]
        daemon = subprocess.Popen(command, stderr=log)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the daemon; its goodbye ends this
        for number in (signal.SIGTERM, signal.SIGHUP):  # a signal that ends this program ends the daemon too
            signal.signal(number, lambda number, _: sys.exit(128 + number))
        try:
            status = hear(daemon, socket, json.loads(TRUTH.read_text()) if is_bundled else None)
        except BrokenPipeError:  # the reader of standard output has closed it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141
        finally:
            daemon.terminate()
            daemon.wait()
        if status:
            log.seek(0)
            print(log.read(), end="", file=sys.stderr)
        return status


def hear(daemon: subprocess.Popen[bytes], socket: Path, truth: list[dict[str, Any]] | None) -> int:
    """Print the daemon's events and a summary. Return its exit status."""
    heard, seconds = [], 0.0
    for event in events(daemon, socket):
        print(readable(event), flush=True)
        heard += [event] if isinstance(event, DetectionEvent) else []
        seconds = event.heard_seconds if isinstance(event, Goodbye) else seconds
    status = daemon.wait()
    if not status:
        print(summary(heard, seconds, truth))
    return status


def events(daemon: subprocess.Popen[bytes], socket: Path) -> Iterator[Event]:
    """Subscribe as soon as the daemon accepts connections. Yield nothing if it ends earlier."""
    while daemon.poll() is None:
        try:
            yield from subscribe(socket, reconnect=False)
            return
        except SocketError:  # not ready yet; if it fails, its status and log say why
            time.sleep(0.05)


def summary(heard: list[DetectionEvent], seconds: float, truth: list[dict[str, Any]] | None) -> str:
    """Return one line: how many keywords were heard, and if the truth is known, how many events were right or wrong."""
    if truth is None:
        return f"{len(heard)} keywords heard in {seconds:.1f} s of audio"
    right, wrong, n_keywords = score(heard, truth)
    delays = sorted(delay for _, delay in right) or [float("nan")]
    return (
        f"{len(right)} of {n_keywords} keywords heard (median {delays[len(delays) // 2]:.2f} s after the word's end), "
        f"{len(wrong)} wrong events, in {seconds:.1f} s of audio"
    )


def score(
    heard: list[DetectionEvent], truth: list[dict[str, Any]]
) -> tuple[list[tuple[str, float]], list[DetectionEvent], int]:
    """Match each keyword once with an event between its start and a second after its end.

    Returns:
        the matched keywords (label, seconds from the word's end to the event); the events that
        match no keyword; and the number of keywords.
    """
    right, wrong = [], list(heard)
    keywords = [word for word in truth if word["is_keyword"]]
    for word in keywords:
        for event in wrong:
            delay = event.end_seconds - word["end_seconds"]
            if event.label == word["word"] and event.end_seconds > word["start_seconds"] and delay <= IN_TIME_SECONDS:
                right.append((event.label, delay))
                wrong.remove(event)
                break
    return right, wrong, len(keywords)


if __name__ == "__main__":
    sys.exit(main())
