"""Shared fixtures: the bundled recording and model, small WAVs, running daemons."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from kwsd.audio import FloatArray
from kwsd.core.model import Model, load_model
from kwsd.sources.recording import read_recording
from support import DEMO, serving


@pytest.fixture(scope="session")
def model() -> Model:
    """The bundled model."""
    return load_model(device="cpu")


@pytest.fixture(scope="session")
def demo() -> FloatArray:
    """The samples of the bundled recording, 16 kHz."""
    samples, rate_hz = read_recording(DEMO)
    assert rate_hz == 16000
    return samples


@pytest.fixture(scope="session")
def few_seconds_wav(tmp_path_factory: pytest.TempPathFactory, demo: FloatArray) -> Path:
    """The words "down" and "on" from the bundled recording, in 3.6 s."""
    path = tmp_path_factory.mktemp("wav") / "few.wav"
    down, on = demo[14400:46400], demo[67200:92800]
    soundfile.write(path, np.concatenate([down, on]), 16000, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def truth() -> list[dict]:
    return json.loads(DEMO.with_suffix(".json").read_text())


@pytest.fixture
def write_wav(tmp_path: Path) -> Callable[..., Path]:
    """Write samples to a file below tmp_path; returns its path."""

    def write(name: str, samples: np.ndarray, rate_hz: int = 16000, subtype: str = "PCM_16") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate_hz, subtype=subtype)
        return path

    return write


@pytest.fixture
def noise() -> FloatArray:
    """Two seconds of speech-like levels: noise with a slow envelope, at 16 kHz."""
    random = np.random.default_rng(3)
    envelope = 0.02 + 0.2 * np.abs(np.sin(np.arange(32000) / 3000))
    return (envelope * random.standard_normal(32000)).astype(np.float32)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], Path]]]:
    """Start `kwsd run` and wait until it accepts connections; kill it when the test ends."""
    started = []

    def start(*arguments: object, **options: object) -> tuple[subprocess.Popen[str], Path]:
        socket = tmp_path / "kwsd.sock"
        command = [sys.executable, "-m", "kwsd", "run", "--socket", str(socket), *map(str, arguments)]
        daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)
        started.append(daemon)
        serving(socket, daemon)
        return daemon, socket

    yield start
    for daemon in started:
        daemon.kill()
        daemon.wait()
        for pipe in (daemon.stdin, daemon.stdout, daemon.stderr):
            if pipe:
                pipe.close()


@pytest.fixture
def quiet(start_daemon):
    """Start a daemon that waits for audio on its audio socket. Gives the daemon and both socket paths."""

    def start(**options):
        folder = options.pop("folder")
        audio = folder / "audio.sock"
        daemon, path = start_daemon("--source", "network", "--audio", audio, **options)
        serving(audio, daemon)
        return daemon, path, audio

    return start
