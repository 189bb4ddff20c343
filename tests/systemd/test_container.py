"""The Dockerfile: linted everywhere, built and run where a Docker engine runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kwsd.config import ConfigFile
from kwsd.typed import build
from support import ROOT


def has_engine() -> bool:
    return bool(shutil.which("docker")) and subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def test_the_dockerfile_is_linted():
    hadolint = Path(sys.executable).parent / "hadolint"
    result = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_image_is_small_and_its_user_not_root():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert any(line.startswith("FROM python:") and line.endswith("-slim") for line in lines)
    assert lines.index("USER 977") < next(n for n, line in enumerate(lines) if line.startswith("ENTRYPOINT"))
    assert "/livez" in (ROOT / "Dockerfile").read_text().partition("HEALTHCHECK")[2]


def test_everything_that_is_copied_is_in_the_context():
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    assert {path for paths in copied for path in paths} == set(sent)
    assert all((ROOT / path).exists() for path in sent)


def test_its_configuration_is_right():
    config = build(ConfigFile, yaml.safe_load((ROOT / "systemd" / "container.yaml").read_text()))
    assert config.http == "127.0.0.1:7311"


@pytest.mark.slow
@pytest.mark.skipif(not has_engine(), reason="no Docker engine runs here")
def test_the_image_is_built_and_hears():
    subprocess.run(["docker", "build", "-t", "kwsd-test", ROOT], check=True)
    recording = ROOT / "demo" / "recording.wav"
    command = ["docker", "run", "--rm", "-v", f"{recording}:/r.wav:ro", "kwsd-test", "spot", "/r.wav"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(result.stdout.splitlines()) == 10
