"""What a person at a terminal sees of `kwsd run` and `kwsd listen --scores`."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from kwsd.client import subscribe
from kwsd.commands.show import Board
from kwsd.protocol.events import DetectionEvent, Scores, SourceDown
from support import DEMO, ends_well, serving


@pytest.fixture
def on_terminal():
    """Start a kwsd command on a terminal of its own; returns the process and a function that reads until a text."""
    processes, ends = [], []

    def start(*arguments):
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "kwsd", *map(str, arguments)]
        environment = {**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment
        )
        os.close(theirs)
        processes.append(process)
        ends.append(ours)

        def read_until(text, seconds=20.0):
            deadline, seen = time.monotonic() + seconds, ""
            while text not in seen and time.monotonic() < deadline:
                if select.select([ours], [], [], 0.1)[0]:
                    with suppress(OSError):  # the process has ended
                        seen += os.read(ours, 65536).decode(errors="replace")
            return seen

        return process, read_until

    yield start
    for process in processes:
        process.kill()
        process.communicate()
    for end in ends:
        os.close(end)


def test_run_shows_a_level_meter_until_the_first_detection_and_then_detections(on_terminal, tmp_path):
    daemon, read_until = on_terminal("run", "--source", DEMO, "--socket", tmp_path / "k.sock")
    before = read_until(" down ")
    assert "listening for yes, no" in before
    assert len(re.findall(r"#+ +-\d\d dBFS", before)) > 5
    after = read_until(" on ")
    assert "score" in after
    assert "#" not in after.partition("score")[2]  # the meter has gone
    ends_well(daemon)
    assert "goodbye: SIGTERM" in read_until("goodbye")


@pytest.mark.parametrize("quiet", [["--quiet"], []], ids=["quiet", "no terminal"])
def test_run_shows_nothing_if_told_so_or_without_a_terminal(on_terminal, start_daemon, tmp_path, quiet):
    if quiet:
        path = tmp_path / "k.sock"
        daemon, read_until = on_terminal("run", "--source", DEMO, "--socket", path, *quiet)
        serving(path, daemon)
        assert read_until("listening", seconds=3) == ""
    else:
        daemon, path = start_daemon("--source", DEMO, stdout=subprocess.PIPE)
        assert any(isinstance(event, DetectionEvent) for event in subscribe(path))
    ends_well(daemon)
    if not quiet:
        assert daemon.stdout.read() == ""


def test_listen_shows_the_scores_as_bars(on_terminal, start_daemon):
    _, path = start_daemon("--source", DEMO)
    _, read_until = on_terminal("listen", "--scores", "--socket", path)
    seen = read_until("down█")
    assert re.search(r"default +-\d\d dBFS  yes. no. up. down█", seen)
    assert "score 0.9" in read_until("score")


class Paper:
    """Keeps what is written, as one text."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text

    def flush(self):
        pass


def test_a_board_has_a_line_for_each_stream_that_is_up(monkeypatch):
    monkeypatch.setattr("kwsd.commands.show._REDRAW_SECONDS", 0)
    paper = Paper()
    board = Board(paper, bars=True, n_streams=2)
    for stream in ("hall", "yard", "attic"):
        board.show(Scores(stream=stream, end_seconds=1.0, scores={"stop": 1.0}, level_dbfs=-30.0))
    assert paper.text.endswith("\x1b[1A\r\x1b[Jhall       -30 dBFS  stop█\nyard       -30 dBFS  stop█")
    board.show(SourceDown(seq=1, boot_id="b", time="t", stream="hall", reason="unplugged", retry_seconds=1.0))
    assert paper.text.endswith("next try in 1 s\nyard       -30 dBFS  stop█\nattic      -30 dBFS  stop█")
    board.clear()
    assert paper.text.endswith("\r\x1b[J")
