"""The program of `make run` on the bundled recording, in real time: the first thing that a new user sees."""

import json
import os
import pty
import re
import subprocess
import sys

import pytest

from demo.hear import score
from kwsd.protocol.events import DetectionEvent
from support import DEMO, ROOT


@pytest.mark.slow
def test_make_run_detects_every_keyword_of_the_bundled_recording():
    command = [sys.executable, "demo/hear.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    *lines, summary = result.stdout.splitlines()
    assert lines[0].startswith("listening for yes, no, up")
    right, n_keywords, wrong = map(
        int, re.match(r"(\d+) of (\d+) keywords heard .*, (\d+) wrong events", summary).groups()
    )
    assert n_keywords == 10
    assert right == 10, result.stdout
    assert wrong == 0, result.stdout
    readme = (ROOT / "README.md").read_text()
    shown = readme[readme.index(lines[0]) :].partition("```")[0].splitlines()
    assert [line for line in shown if line not in [*lines, "…", summary]] == []


def test_a_reader_that_closes_early_causes_no_traceback():
    command = f"{sys.executable} demo/hear.py"
    result = subprocess.run(f"{command} | head -1", shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert len(result.stdout.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_on_a_terminal_each_event_is_shown_once():
    ours, theirs = pty.openpty()
    command = [sys.executable, "demo/hear.py"]
    with subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.DEVNULL) as process:
        os.close(theirs)
        seen = ""
        while " on  " not in seen:
            seen += os.read(ours, 4096).decode()
        process.terminate()
    os.close(ours)
    assert seen.count(" down  ") == 1
    assert "###" not in seen  # the level meter of `kwsd run`


def test_a_missing_source_gives_one_line_and_exit_status_1():
    command = [sys.executable, "demo/hear.py", "absent.wav"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "kwsd: absent.wav: No such file" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_recording_has_all_keywords_and_other_words_in_several_voices():
    truth = json.loads(DEMO.with_suffix(".json").read_text())
    assert len({word["word"] for word in truth if word["is_keyword"]}) == 10
    assert sum(not word["is_keyword"] for word in truth) >= 5
    assert len({word["voice"] for word in truth}) >= 4
    assert 30 <= DEMO.stat().st_size / 32000 <= 60


def heard(label, end_seconds):
    return DetectionEvent(
        stream="s", label=label, score=1.0, start_seconds=0.0, end_seconds=end_seconds, loudness_dbfs=0.0
    )


def test_scoring_matches_each_word_once_and_in_time():
    truth = [
        {"word": "stop", "is_keyword": True, "start_seconds": 1.0, "end_seconds": 1.5},
        {"word": "tree", "is_keyword": False, "start_seconds": 3.0, "end_seconds": 3.5},
        {"word": "go", "is_keyword": True, "start_seconds": 5.0, "end_seconds": 5.5},
    ]
    events = [heard("stop", 1.7), heard("stop", 2.2), heard("go", 3.2), heard("go", 7.0)]
    right, wrong, n_keywords = score(events, truth)
    assert [(label, round(delay, 3)) for label, delay in right] == [("stop", 0.2)]
    assert [event.end_seconds for event in wrong] == [2.2, 3.2, 7.0]
    assert n_keywords == 2
