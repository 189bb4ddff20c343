"""What `make run` does: start the daemon, subscribe as any program would, print what it hears.

python demo/hear.py [SOURCE]    a recording (demo/recording.wav), microphone, or - for raw PCM

Where a recording has its truth beside it (the same name with .json), the summary says how
many of its keywords were heard within a second of their end.
"""

import json
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
from kwsd.events import DetectionEvent, Event, Goodbye
from kwsd.readable import readable

IN_TIME_SECONDS = 1.0
START_SECONDS = 30.0


def main() -> int:
    """Returns the daemon's exit status."""
    source = sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).with_name("recording.wav"))
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+") as log:
        socket = Path(folder) / "kwsd.sock"
        command = [sys.executable, "-m", "kwsd", "run", "--source", source, "--socket", str(socket)]
        daemon = subprocess.Popen(command, stderr=log)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the daemon, and its goodbye ends us
        heard, seconds = [], 0.0
        for event in events(daemon, socket):
            print(readable(event), flush=True)
            heard += [event] if isinstance(event, DetectionEvent) else []
            seconds = event.heard_seconds if isinstance(event, Goodbye) else seconds
        status = daemon.wait()
        if status:
            log.seek(0)
            print(log.read(), end="", file=sys.stderr)
        else:
            print(summary(heard, seconds, Path(source).with_suffix(".json")))
        return status


def events(daemon: subprocess.Popen[bytes], socket: Path) -> Iterator[Event]:
    """Subscribe as soon as the daemon serves; nothing if it ends before."""
    deadline = time.monotonic() + START_SECONDS
    while daemon.poll() is None and not socket.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    try:
        yield from subscribe(socket)
    except SocketError:
        if daemon.wait() == 0:  # it should have been there
            raise


def summary(heard: list[DetectionEvent], seconds: float, truth_path: Path) -> str:
    """One line: what was heard, and how much of it was right if that is known."""
    if not truth_path.is_file():
        return f"{len(heard)} keywords heard in {seconds:.1f} s of audio"
    right, wrong, n_keywords = score(heard, json.loads(truth_path.read_text()))
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
        what was right (label, seconds from the word's end to the event); what was wrong;
        and how many keywords there are.
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
