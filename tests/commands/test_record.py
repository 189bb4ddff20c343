"""`kwsd record`: a WAV of what the daemon would hear, whole or not at all."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from kwsd.sources.recording import read_recording
from support import DEMO, kwsd


def test_a_source_is_recorded_for_a_time(tmp_path, demo):
    result = kwsd("record", tmp_path / "room.wav", "--source", DEMO, "--minutes", 0.02)
    assert result.stdout == f"written: {tmp_path / 'room.wav'}, 1.2 s\n"
    samples, rate_hz = read_recording(tmp_path / "room.wav")
    assert rate_hz == 16000
    np.testing.assert_array_equal(samples, demo[:19200])


def test_ctrl_c_ends_a_recording_and_keeps_it(tmp_path):
    path = tmp_path / "room.wav"
    command = [sys.executable, "-m", "kwsd", "record", path, "--source", DEMO]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not (tmp_path / ".kwsd-part-room.wav").exists():
            time.sleep(0.05)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert said.startswith(f"written: {path}, ")
    assert 0.5 < len(read_recording(path)[0]) / 16000 < 5


def test_a_mistake_is_one_line_and_leaves_no_file(tmp_path):
    for arguments, message in (
        (["--source", "missing.wav"], "missing.wav: No such file or directory"),
        (["--source", DEMO, "--minutes", 0], "--minutes 0: must be positive"),
        (["--source", DEMO, "--minutes", "nan"], "--minutes nan: must be positive"),
    ):
        result = kwsd("record", "room.wav", *arguments, cwd=tmp_path)
        assert result.stderr == f"kwsd: {message}\n"
        assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_ends_a_recording_and_keeps_it(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        result = kwsd("record", tmp_path / "room.wav", "--source", DEMO)
        assert result.stderr.endswith("cannot be written any further (the first 6 s are kept); is the disk full?\n")
        assert result.returncode == 1
        samples, _ = read_recording(tmp_path / "room.wav")
        assert 6 <= len(samples) / 16000 < 7
    finally:
        subprocess.run(["umount", tmp_path], check=True)
