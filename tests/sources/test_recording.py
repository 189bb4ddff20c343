"""Recordings in many containers: whole, truncated, and written into a pipe."""

import struct

import numpy as np
import pytest
import soundfile

from kwsd.errors import AudioError
from kwsd.sources.recording import open_recording, read_block, read_recording

CONTAINERS = [("WAV", "FLOAT"), ("RF64", "PCM_24"), ("W64", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16")]


@pytest.mark.parametrize(("container", "subtype"), [*CONTAINERS, ("CAF", "PCM_16"), ("FLAC", "PCM_16")])
def test_every_container_gives_the_same_samples(tmp_path, noise, container, subtype):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, subtype, format=container)
    samples, rate_hz = read_recording(path)
    assert rate_hz == 16000
    np.testing.assert_allclose(samples, noise, atol=2**-15)


@pytest.mark.parametrize(("container", "subtype"), [*CONTAINERS, ("CAF", "PCM_16"), ("WAV", "PCM_16")])
@pytest.mark.parametrize("n_kept", [30, 5000, -1])
def test_a_truncated_recording_is_refused_with_both_sizes(tmp_path, noise, container, subtype, n_kept):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, subtype, format=container)
    whole = path.read_bytes()
    path.write_bytes(whole[:n_kept])
    n_bytes = len(whole[:n_kept])
    with pytest.raises(AudioError, match=rf"clip: (truncated, {n_bytes} of \d+ bytes|not a readable recording)"):
        read_recording(path)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_wav_from_a_pipe_reaches_to_the_end_of_the_file(tmp_path, noise, size, subtype):
    path = tmp_path / "clip.wav"
    soundfile.write(path, noise, 16000, subtype)
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = data[4:8] = struct.pack("<I", size)
    path.write_bytes(data)
    samples, _ = read_recording(path)
    np.testing.assert_allclose(samples, noise, atol=2**-15)
    with open_recording(path) as file:
        assert file.frames == len(noise)
        np.testing.assert_array_equal(read_block(file, path, 10**6), samples)
