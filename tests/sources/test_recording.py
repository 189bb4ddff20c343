"""Recordings in many containers: whole, truncated, and written into a pipe."""

import struct

import numpy as np
import pytest
import soundfile

from kwsd.audio import PcmFormat
from kwsd.errors import AudioError, SourceError
from kwsd.sources.pcm import PcmInput
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


@pytest.mark.parametrize(
    ("container", "kind"),
    [
        ("WAV", "a WAV"),
        ("RF64", "a WAV"),
        ("W64", "a W64"),
        ("AIFF", "an AIFF"),
        ("CAF", "a CAF"),
        ("AU", "an AU"),
        ("FLAC", "a FLAC"),
        ("OGG", "an Ogg"),
    ],
)
def test_standard_input_names_a_container(tmp_path, noise, monkeypatch, container, kind):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, format=container)
    with path.open("rb") as file:
        monkeypatch.setattr("sys.stdin", file)
        _, chunks = PcmInput(PcmFormat()).open()
        with pytest.raises(SourceError, match=f"begins with the header of {kind} file; send PCM without a header"):
            next(chunks)


def test_the_sizes_of_aiff_from_a_pipe_and_of_writers_that_count_the_whole_file_are_accepted(tmp_path, noise):
    path = tmp_path / "clip.aiff"
    soundfile.write(path, noise, 16000, "PCM_16", format="AIFF")
    data = bytearray(path.read_bytes())
    for size in (0xFFFFFFFF, 0x7F000024, len(data)):
        data[4:8] = struct.pack(">I", size)
        path.write_bytes(data)
        samples, _ = read_recording(path)
        assert len(samples) == len(noise), size


def test_an_empty_data_chunk_with_other_chunks_behind_it_holds_no_audio(tmp_path):
    path = tmp_path / "empty.wav"
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 16000, 32000, 2, 16)
    rest = form + struct.pack("<4sI", b"data", 0) + struct.pack("<4sI", b"LIST", 400) + bytes(400)
    path.write_bytes(struct.pack("<4sI4s", b"RIFF", 4 + len(rest), b"WAVE") + rest)
    with pytest.raises(AudioError, match=r"empty\.wav: holds no audio$"):
        read_recording(path)
