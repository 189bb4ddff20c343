"""The configured name selects the right source, and a missing library is a one-line error."""

import sys
import time
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from kwsd.audio import PcmFormat
from kwsd.config import StreamConfig
from kwsd.errors import SourceError
from kwsd.sources.base import make_source
from kwsd.sources.microphone import Microphone
from kwsd.sources.pcm import PcmInput
from kwsd.sources.wav import WavFile
from support import DEMO


@pytest.mark.parametrize(
    ("source", "kind"),
    [("microphone", Microphone), ("microphone:USB", Microphone), ("-", PcmInput), ("microphone.wav", WavFile)],
)
def test_the_source_is_chosen_by_its_name(source, kind):
    assert isinstance(make_source(StreamConfig(source=source)), kind)


def test_a_missing_package_for_microphones_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SourceError, match=r"install kwsd\[mic\]"):
        Microphone(None).open()


def test_a_missing_portaudio_is_named(monkeypatch, tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError, match="install libportaudio2"):
        Microphone(None).open()


def test_the_chunks_of_a_recording_have_no_gaps_and_end(demo):
    rate_hz, chunks = WavFile(DEMO, paced=False).open()
    position = 0
    for chunk in chunks:
        assert chunk.position == position
        position = chunk.end
    assert (rate_hz, position) == (16000, len(demo))


def test_a_folder_is_refused_as_a_recording(tmp_path):
    with pytest.raises(Exception, match="is a folder; name the recordings in it"):
        WavFile(Path(tmp_path), paced=False).open()


def test_a_recording_gives_one_channel_or_the_mean(write_wav, noise):
    path = write_wav("stereo.wav", np.stack([noise, np.zeros_like(noise)], axis=1), subtype="FLOAT")

    def heard(channel):
        opened = make_source(StreamConfig(source=str(path), pace="fast", channel=channel)).open()
        return np.concatenate([chunk.samples for chunk in opened.chunks])

    np.testing.assert_array_equal(heard(1), np.clip(noise, -1, 1))
    assert not heard(2).any()
    np.testing.assert_allclose(heard(None), np.clip(noise, -1, 1) / 2, atol=1e-7)
    with pytest.raises(SourceError, match=r"stereo.wav: has no channel 3, only 2"):
        heard(3)


@pytest.mark.parametrize(("rate_of_the_device", "lost"), [(999.95, 200), (1000.05, 200)])
def test_an_overflow_is_measured_since_the_last_read(monkeypatch, rate_of_the_device, lost):
    """A device's clock differs by seconds a day from the system's clock; this drift is not lost audio."""
    now = 0.0

    class Device:
        read_available = 100

        def read(self, n_samples):
            nonlocal now
            now += 300 / rate_of_the_device if now > 5000 else 100 / rate_of_the_device
            return np.zeros((n_samples, 1), np.float32), now > 5000

        def abort(self, ignore_errors):
            pass

        close = abort

    monkeypatch.setattr(time, "monotonic", lambda: now)
    chunks = Microphone(None)._chunks(SimpleNamespace(PortAudioError=OSError), Device(), 1000)
    ends = [0]
    for chunk in islice(chunks, 60_000):
        if chunk.position > ends[-1]:
            break
        ends.append(chunk.end)
    assert len(ends) > 49_000
    assert chunk.position - ends[-1] == pytest.approx(lost, abs=1)


@pytest.mark.parametrize(
    "form", ["MP3", "OGG", "FLAC", "AIFF", "AU", "CAF", "W64", "NIST", "VOC", "PVF", "AVR", "MAT5"]
)
def test_a_container_on_standard_input_is_named(form, tmp_path):
    path = tmp_path / f"x.{form}"
    tone = 0.3 * np.sin(np.arange(32000) * 0.2)
    soundfile.write(path, tone, 16000, format=form)
    with path.open() as piped, pytest.raises(SourceError, match="standard input begins with the header of"):
        next(PcmInput(PcmFormat())._chunks(piped.fileno()))


@pytest.mark.parametrize(("loudest", "first"), [(32767, -1025), (1, -1), (0, -1025)], ids=["loud", "quiet", "constant"])
def test_raw_pcm_is_no_container(loudest, first, tmp_path):
    """All begin like a frame of MPEG audio."""
    path = tmp_path / "x.raw"
    samples = np.random.default_rng(0).integers(-loudest, loudest, 16000, np.int16, endpoint=True) if loudest else first
    samples = np.broadcast_to(samples, 16000).astype("<i2")
    samples[0] = first
    path.write_bytes(samples.tobytes())
    with path.open() as piped:
        assert len(next(PcmInput(PcmFormat())._chunks(piped.fileno())).samples)
