"""`kwsd listen --exec` runs a command for each detection."""

import subprocess
import sys
import time

from kwsd.commands.execute import execute
from kwsd.protocol.events import DetectionEvent

EVENT = DetectionEvent(
    seq=7, boot_id="b", time="t", stream="hall; touch /tmp/never", label="stop", score=0.9,
    start_seconds=1.0, end_seconds=2.0, loudness_dbfs=-20.0,
)  # fmt: skip


def test_the_event_is_in_the_environment_and_on_standard_input(tmp_path):
    out = tmp_path / "out"
    assert execute(f'echo "$KWSD_LABEL $KWSD_SCORE $KWSD_STREAM" > {out}; cat >> {out}', EVENT, 5) == ""
    assert out.read_text() == f"stop 0.9 hall; touch /tmp/never\n{EVENT.to_json()}\n"


def test_what_an_event_lacks_is_empty(monkeypatch):
    monkeypatch.setenv("KWSD_HOST", "this one")
    assert execute('test -z "$KWSD_HOST"', EVENT, 5) == ""


def test_a_failing_command_is_reported():
    assert execute("exit 3", EVENT, 5) == "--exec: exit status 3 for event 7"
    assert execute("true", EVENT, 5) == ""  # `true` does not read its input


def test_a_slow_command_is_killed_with_its_children(tmp_path):
    started = time.monotonic()
    mark = tmp_path / "late"
    assert "took longer than 0.3 s" in execute(f"(sleep 2; touch {mark}) & sleep 60", EVENT, 0.3)
    assert time.monotonic() - started < 2
    time.sleep(2.2)
    assert not mark.exists()


def test_commands_run_one_after_another(start_daemon, tmp_path, few_seconds_wav):
    _, path = start_daemon("--source", few_seconds_wav)
    out = tmp_path / "out"
    listen = [sys.executable, "-m", "kwsd", "listen", "--once", "--socket", str(path)]
    command = f"echo begin $KWSD_LABEL >> {out}; sleep 0.2; echo end >> {out}"
    subprocess.run([*listen, "--exec", command], capture_output=True, timeout=30, check=True)
    assert out.read_text().split("\n") == ["begin down", "end", "begin on", "end", ""]
