"""`import kwsd` offers four names with their types; each is imported on first use."""

import re
import subprocess
import sys

import pytest
import soundfile

import kwsd
from support import DEMO, ROOT


def test_the_public_names_are_imported_on_first_use():
    from kwsd import Detection, Spotter, load_model, subscribe
    from kwsd.client import subscribe as of_client
    from kwsd.core.model import load_model as of_model
    from kwsd.core.spotter import Detection as Detected
    from kwsd.core.spotter import Spotter as OfCore

    assert (Detection, Spotter, load_model, subscribe) == (Detected, OfCore, of_model, of_client)
    assert {"Detection", "Spotter", "load_model", "subscribe"} <= set(kwsd.__all__)
    assert all(getattr(kwsd, name).__name__ == name for name in kwsd.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'kwsd' has no attribute 'nothing'"):
        _ = kwsd.nothing


def test_import_kwsd_loads_none_of_its_modules():
    code = "import sys, kwsd; print([name for name in sys.modules if name.startswith('kwsd.')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_spotter_detects_the_keywords_of_a_recording(demo, truth):
    spotter = kwsd.Spotter(kwsd.load_model(device="cpu"), rate_hz=16000)
    detections = spotter.push(demo) + spotter.flush()
    assert [one.label for one in detections] == [word["word"] for word in truth if word["is_keyword"]]


def test_a_minute_of_talk_without_keywords_causes_no_event():
    samples, rate_hz = soundfile.read(DEMO.with_name("talk.wav"), dtype="float32")
    assert len(samples) > 60 * rate_hz
    spotter = kwsd.Spotter(kwsd.load_model(device="cpu"), rate_hz)
    assert spotter.push(samples) + spotter.flush() == []


def test_the_readmes_client_sample_passes_mypy_strict(tmp_path):
    samples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    [sample] = [text for text in samples if "subscribe" in text]
    path = tmp_path / "sample.py"
    path.write_text(sample)
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", str(tmp_path), str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
