"""Real capture from a sound server's pipe source, as a microphone that is unplugged and plugged in again.

Needs pulseaudio, pactl, libportaudio2 and ALSA's pulse plugin (`apt-get install
pulseaudio pulseaudio-utils libportaudio2 libasound2-plugins`); otherwise skipped, with a reason.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent, Goodbye, Hello, SourceDown, SourceUp
from learn.voice import WA_I_O, say
from support import DEMO, ROOT, meanwhile, serving

ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\npcm.pulse { type pulse }\n"
SERVER = (
    *("pulseaudio", "-n", "--exit-idle-time=-1", "--use-pid-file=no", "--daemonize=no", "--log-level=error"),
    *("-L", "module-native-protocol-unix"),
)


def has_portaudio():
    try:
        import sounddevice
    except OSError:
        return False
    return bool(sounddevice)


pytestmark = [
    pytest.mark.skipif(not (shutil.which("pulseaudio") and shutil.which("pactl")), reason="pulseaudio is missing"),
    pytest.mark.skipif(not has_portaudio(), reason="PortAudio is missing"),
]


class SoundServer:
    """PulseAudio with a FIFO as its only microphone."""

    def __init__(self, folder):
        self.folder, self.fifo = folder, folder / "mic.fifo"
        self.environment = os.environ | {
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder / "pulse"),
            "HOME": str(folder),
        }
        folder.chmod(0o700)
        (folder / ".asoundrc").write_text(ASOUNDRC)

    def start(self, n_channels=1):
        source = f"module-pipe-source source_name=mic file={self.fifo} format=s16le rate=16000 channels={n_channels}"
        self.process = subprocess.Popen([*SERVER, "-L", source], env=self.environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while subprocess.run(["pactl", "info"], env=self.environment, capture_output=True).returncode:
            assert time.monotonic() < deadline, "pulseaudio did not start"
            time.sleep(0.1)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)

    def speak(self, samples):
        """Write samples into the microphone in real time."""
        with self.fifo.open("wb", buffering=0) as fifo:
            started = time.monotonic()
            for start in range(0, len(samples), 800):
                fifo.write(samples[start : start + 800].tobytes())
                time.sleep(max(0, started + start / 16000 - time.monotonic()))


@pytest.fixture
def server(tmp_path):
    server = SoundServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_the_microphone_works_under_the_units_sandbox(server, tmp_path):
    """It could break libraries: `MemoryDenyWriteExecute` PortAudio's callbacks, `@resources` NumPy, and so on."""
    path = tmp_path / "kwsd.sock"
    sandbox = [sys.executable, ROOT / "tests" / "systemd" / "sandbox.py", ROOT / "systemd" / "kwsd.service"]
    command = [*sandbox, sys.executable, "-m", "kwsd", "run", "--source", "microphone", "--socket", path]
    samples, _ = soundfile.read(DEMO, frames=4 * 16000, dtype="int16")
    with subprocess.Popen(command, env=server.environment, stderr=subprocess.PIPE, text=True) as daemon:
        try:
            serving(path, daemon)
            events = []
            threading.Thread(target=collect, args=(events, path), daemon=True).start()
            wait_for(events, Hello, 1)
            server.speak(samples)
            wait_for(events, DetectionEvent, 1)
        finally:
            daemon.terminate()
        assert daemon.wait(5) == 0
    assert next(event for event in events if isinstance(event, DetectionEvent)).label == "down"


def collect(events, path):
    for event in subscribe(path):
        events.append(event)  # immediately: the other thread watches this list


def wait_for(events, kind, n, seconds=20):
    deadline = time.monotonic() + seconds
    while sum(isinstance(event, kind) for event in events) < n:
        assert time.monotonic() < deadline, f"no {kind.type}: {events}"
        time.sleep(0.05)


def test_words_are_detected_again_after_the_microphone_was_unplugged(server, start_daemon):
    samples, _ = soundfile.read(DEMO, frames=6 * 16000, dtype="int16")
    daemon, path = start_daemon("--source", "microphone", env=server.environment)
    events = []
    listening = threading.Thread(target=collect, args=(events, path), daemon=True)
    listening.start()
    wait_for(events, Hello, 1)
    server.speak(samples)
    wait_for(events, DetectionEvent, 1)
    first = next(event for event in events if isinstance(event, DetectionEvent))
    assert first.label == "down"

    server.stop()
    wait_for(events, SourceDown, 1)
    server.start()
    wait_for(events, SourceUp, 1)  # returns at once if the subscription also got the first source_up
    n_heard = sum(isinstance(event, DetectionEvent) for event in events)
    deadline = time.monotonic() + 30
    while sum(isinstance(event, DetectionEvent) for event in events) == n_heard and time.monotonic() < deadline:
        server.speak(samples)
    later = [event for event in events if isinstance(event, DetectionEvent)][n_heard:]
    assert later
    assert later[0].label in {"down", "on"}
    assert later[0].end_seconds > first.end_seconds + 2  # the sample clock continued

    daemon.terminate()
    assert daemon.wait(5) == 0
    listening.join(5)
    assert isinstance(events[-1], Goodbye)


LEVELS = """
import sys, numpy as np
from kwsd.sources.microphone import Microphone
for channel in (1, 2):
    rate_hz, chunks = Microphone(None, channel).open()
    n_heard, loudest = 0, 0.0
    for chunk in chunks:
        n_heard, loudest = n_heard + len(chunk.samples), max(loudest, np.abs(chunk.samples).max())
        if n_heard > rate_hz:
            break
    chunks.close()
    print(loudest)
"""


def test_a_configured_channel_selects_that_channel_of_the_device(tmp_path):
    server = SoundServer(tmp_path)
    server.start(n_channels=2)
    try:
        stereo = np.zeros((16000 * 10, 2), np.int16)
        stereo[:, 1] = 16384 * np.sin(np.arange(len(stereo)) * 0.4)
        meanwhile(server.speak, stereo)
        levels = subprocess.run(
            [sys.executable, "-c", LEVELS], env=server.environment, capture_output=True, text=True, timeout=30
        )
        left, right = map(float, levels.stdout.split())
        assert left < 0.001
        assert 0.4 < right < 0.6
    finally:
        server.stop()


def test_streams_of_one_device_open_it_once_and_get_their_own_channels(tmp_path, start_daemon):
    server = SoundServer(tmp_path)
    server.start(n_channels=2)
    try:
        config = tmp_path / "kwsd.yaml"
        streams = {name: {"source": "microphone", "channel": n} for n, name in ((1, "left"), (2, "right"))}
        config.write_text(json.dumps({"streams": streams}))
        _, path = start_daemon("--config", config, env=server.environment)
        events = []
        threading.Thread(target=collect, args=(events, path), daemon=True).start()
        wait_for(events, Hello, 1)
        samples, _ = soundfile.read(DEMO, frames=6 * 16000, dtype="int16")
        quiet = np.random.default_rng(0).integers(-3, 4, len(samples), np.int16)
        server.speak(np.stack([quiet, samples], axis=1))
        wait_for(events, DetectionEvent, 1)
        opened = subprocess.run(
            ["pactl", "list", "short", "source-outputs"], env=server.environment, capture_output=True, text=True
        )
        assert len(opened.stdout.splitlines()) == 1
        assert {event.stream for event in events if isinstance(event, SourceUp)} <= {"left", "right"}
        assert {event.stream for event in events if isinstance(event, DetectionEvent)} == {"right"}
    finally:
        server.stop()


def test_each_stream_records_from_the_source_that_it_names(server, start_daemon, tmp_path):
    """PortAudio has one device for all of a sound server's sources."""
    second = tmp_path / "second.fifo"
    source = ("module-pipe-source", "source_name=mic_2", f"file={second}", "format=s16le", "rate=16000", "channels=1")
    subprocess.run(["pactl", "load-module", *source], env=server.environment, check=True, capture_output=True)
    config = tmp_path / "kwsd.yaml"
    streams = {name: {"source": f"microphone:{source}"} for name, source in (("desk", "mic"), ("kitchen", "mic_2"))}
    config.write_text(json.dumps({"streams": streams}))
    _, path = start_daemon("--config", config, env=server.environment)
    events = []
    threading.Thread(target=collect, args=(events, path), daemon=True).start()
    wait_for(events, Hello, 1)
    samples, _ = soundfile.read(DEMO, frames=6 * 16000, dtype="int16")
    server.fifo = second
    server.speak(samples)
    wait_for(events, DetectionEvent, 1)
    heard = [event for event in events if isinstance(event, DetectionEvent)]
    assert {event.stream for event in heard} == {"kitchen"}
    assert heard[0].label == "down"


def test_devices_lists_the_microphone_and_the_sources(server):
    result = subprocess.run(
        [sys.executable, "-m", "kwsd", "devices"], env=server.environment, capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0
    assert "(default)" in result.stdout
    assert "     mic (a source of the sound server)" in result.stdout.splitlines()


@pytest.mark.parametrize(
    ("source", "reason"),
    [("microphone", "the default microphone: cannot be opened (there is none)"),
     ("microphone:no such thing", "microphone no such thing: cannot be opened")],
)  # fmt: skip
def test_a_missing_microphone_is_a_one_line_error_with_advice(tmp_path, source, reason):
    environment = os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path), "PULSE_SERVER": "/nonexistent"}
    result = subprocess.run(
        [sys.executable, "-m", "kwsd", "run", "--source", source, "--socket", str(tmp_path / "s")],
        env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert result.returncode == 1
    assert f"kwsd: {reason}" in result.stderr
    assert "`kwsd devices` lists" in result.stderr
    assert "Traceback" not in result.stderr


def test_takes_of_a_word_are_recorded_at_the_microphone(server, tmp_path):
    word = np.tile(np.pad((32767 * say(WA_I_O, 150, 0.6)).astype("<i2"), 4000), 20)
    meanwhile(server.speak, word)
    command = [sys.executable, "-m", "kwsd", "learn", "waio", "--record", "3", "-o", tmp_path / "home.onnx"]
    result = subprocess.run(
        command, env=server.environment, input="\n" * 6, capture_output=True, text=True, timeout=90, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "waio: learnt from 3 recordings" in result.stdout
