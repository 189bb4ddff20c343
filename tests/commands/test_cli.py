"""A user's mistake gives one clear line and a nonzero exit status, never a traceback."""

import json
import signal
import subprocess
import sys

import numpy as np
import onnx
import pytest
import soundfile

from kwsd.core.frontend import resample
from support import DEMO, kwsd


def mistake(result, *parts):
    assert result.returncode not in (0, None)
    assert "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("kwsd: ")
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def foreign_onnx(tmp_path):
    value = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    graph = onnx.helper.make_graph(nodes, "g", [value("x", 1, [1])], [value("y", 1, [1])])
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "foreign.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def test_unreadable_recordings_are_one_line_each(tmp_path):
    for name, content in (("empty", b""), ("text", b"hello"), ("half", DEMO.read_bytes()[:50000])):
        path = tmp_path / f"{name}.wav"
        path.write_bytes(content)
        mistake(kwsd("spot", path), f"{name}.wav: ")
        mistake(kwsd("run", "--source", path, "--socket", tmp_path / "s"), f"{name}.wav: ")


def test_spot_continues_after_an_unreadable_file(tmp_path):
    (tmp_path / "bad.wav").touch()
    result = kwsd("spot", tmp_path / "bad.wav", DEMO)
    mistake(result, "bad.wav: empty file")
    assert "score" in result.stdout


def test_invalid_models_are_one_line_each(tmp_path, foreign_onnx):
    mistake(kwsd("spot", "--model", tmp_path / "absent.onnx", DEMO), "absent.onnx: no such model file")
    mistake(kwsd("spot", "--model", foreign_onnx, DEMO), "not a kwsd model")
    mistake(kwsd("label", tmp_path, "-o", tmp_path / "s.csv", "--model", foreign_onnx), "not a kwsd model")


def test_mistakes_in_configuration_and_socket_are_one_line_each(tmp_path):
    (tmp_path / "kwsd.yaml").write_text("sourc: microphone")
    result = kwsd("run", "--config", tmp_path / "kwsd.yaml")
    mistake(result, "kwsd.yaml: sourc: unknown key; did you mean source?")
    assert result.returncode == 2
    result = kwsd("run", "--source", DEMO, "--socket", tmp_path / "absent" / "kwsd.sock")
    mistake(result, "absent: No such file or directory; create this folder")
    (tmp_path / "file").write_text("precious")
    assert "not a socket" in kwsd("run", "--source", DEMO, "--socket", tmp_path / "file").stderr
    assert (tmp_path / "file").read_text() == "precious"
    mistake(kwsd("spot", "--threshold", 3, DEMO), "threshold: 3 is not between 0 and 1")
    mistake(kwsd("spot", tmp_path), "is a folder; name the recordings in it")
    assert "--config: can be given only once" in kwsd("run", "--config", "a.yaml", "--config", "b.yaml").stderr


def test_a_missing_onnx_runtime_is_named():
    command = "import sys; sys.modules['onnxruntime'] = None; from kwsd.cli import main; sys.exit(main())"
    result = subprocess.run([sys.executable, "-c", command, "spot", DEMO], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (
        1,
        "kwsd: needs ONNX Runtime, which is not installed: install kwsd[cpu] or kwsd[gpu]\n",
    )


def test_spot_prints_the_fields_of_the_protocol():
    result = kwsd("spot", "--json", DEMO)
    assert result.returncode == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events
    assert [event["seq"] for event in events] == list(range(len(events)))
    wanted = {
        "type",
        "seq",
        "boot_id",
        "stream",
        "label",
        "score",
        "start_seconds",
        "end_seconds",
        "loudness_dbfs",
        "time",
    }
    for event in events:
        assert set(event) == wanted
        assert event["type"] == "detection"
        assert event["stream"] == str(DEMO)


def test_the_threshold_option_replaces_all_thresholds():
    low, high = (kwsd("spot", "--threshold", t, DEMO).stdout.splitlines() for t in (0.3, 0.99))
    assert len(low) > len(high)


def test_a_48_khz_stereo_recording_gives_the_same_keywords(tmp_path, demo, truth):
    files = {"mono": [], "stereo": []}
    for word in (word for word in truth if word["is_keyword"]):
        start = int(word["start_seconds"] * 16000)
        samples = demo[start - 8000 : start + 16000]
        fast = resample(samples, 16000, 48000)
        for name, data, rate_hz in (("mono", samples, 16000), ("stereo", np.stack([fast, fast], axis=1), 48000)):
            files[name].append(tmp_path / f"{word['word']}_{name}.wav")
            soundfile.write(files[name][-1], data, rate_hz, subtype="PCM_16")
    heard = {}
    for name, paths in files.items():
        events = [json.loads(line) for line in kwsd("spot", "--json", *paths).stdout.splitlines()]
        heard[name] = [(event["stream"].split("/")[-1].split("_")[0], event["label"]) for event in events]
    assert heard["stereo"] == heard["mono"]
    assert sum(said == label for said, label in heard["mono"]) >= 8


def test_label_names_unreadable_clips(tmp_path, write_wav, noise):
    write_wav("clips/good.wav", noise)
    (tmp_path / "clips" / "bad.wav").touch()
    result = kwsd("label", tmp_path / "clips", "-o", tmp_path / "s.csv")
    assert result.returncode == 1
    assert "bad.wav: empty file" in result.stderr
    assert "1 clips labelled" in result.stdout
    assert (tmp_path / "s.csv").read_text().splitlines()[1].startswith("good.wav,")


def test_check_prints_ok_or_advice(tmp_path):
    good = kwsd("check", "--source", DEMO, "--socket", tmp_path / "kwsd.sock")
    assert good.returncode == 0, good.stdout
    assert [line[:4] for line in good.stdout.splitlines()] == ["ok  "] * 4
    assert not (tmp_path / "kwsd.sock").exists()
    bad = kwsd("check", "--source", tmp_path / "absent.wav", "--socket", tmp_path / "absent" / "s", "--model", DEMO)
    assert bad.returncode == 1
    assert [line[:4] for line in bad.stdout.splitlines()] == ["ok  ", "FAIL", "FAIL", "FAIL"]
    assert "Traceback" not in bad.stderr


def test_without_standard_output_there_is_no_traceback():
    command = f"{sys.executable} -m kwsd check --source {DEMO} >&-"
    assert "Traceback" not in subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60).stderr


def test_a_reader_that_closes_early_causes_no_traceback():
    command = f"{sys.executable} -m kwsd spot --threshold 0.2 {DEMO} | head -1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert len(result.stdout.splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_help_lists_the_commands():
    text = kwsd("--help").stdout
    for command in ("run", "listen", "spot", "label", "devices", "check"):
        assert f"    {command} " in text


def test_ctrl_c_ends_spot_at_once_and_without_a_traceback(tmp_path):
    samples, rate_hz = soundfile.read(DEMO, dtype="int16")
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(samples, 60), rate_hz)
    command = [sys.executable, "-m", "kwsd", "spot", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as spot:
        assert "down" in spot.stdout.readline()
        spot.send_signal(signal.SIGINT)
        _, errors = spot.communicate(timeout=10)
    assert spot.returncode == -signal.SIGINT
    assert errors == ""
