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


@pytest.mark.parametrize("container", ["OGG", "MP3", "NIST", "FLAC"])
def test_a_truncated_recording_without_chunks_is_refused(tmp_path, noise, container):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, format=container)
    whole = path.read_bytes()
    assert len(read_recording(path)[0]) == len(noise)
    for n_bytes in (len(whole) // 2, len(whole) - 400, len(whole) - 1):
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(AudioError, match=r"clip: (truncated|damaged)"):
            read_recording(path)


@pytest.mark.parametrize("subtype", ["ULAW", "PCM_24"])
def test_nist_of_any_kind_is_checked(tmp_path, noise, subtype):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, subtype, format="NIST")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(AudioError, match="clip: truncated, "):
        read_recording(path)


def test_a_large_size_is_no_missing_size(tmp_path, noise):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, "PCM_16", format="WAV")
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 4, 3_000_000_036)
    struct.pack_into("<I", data, 40, 3_000_000_000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="truncated, 64044 of 3000000044 bytes"):
        read_recording(path)


def test_a_tag_before_mp3_hides_no_truncation(tmp_path, noise):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, format="MP3")
    tag = b"ID3\x03\0\0" + bytes([0, 1, 2, 3]) + b"Info".ljust((1 << 14) + (2 << 7) + 3, b"\0")
    whole = tag + path.read_bytes()
    path.write_bytes(whole)
    assert len(read_recording(path)[0]) == len(noise)
    path.write_bytes(whole[:-500])
    with pytest.raises(AudioError, match="clip: truncated, "):
        read_recording(path)


def test_a_flac_without_its_length_is_refused(tmp_path, noise):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0  # the number of samples has 36 bits
    data[22:26] = bytes(4)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="clip: does not say its length, as if from a pipe; convert it to WAV"):
        read_recording(path)


def test_a_page_of_ogg_that_is_missing_is_noticed(tmp_path):
    path = tmp_path / "clip"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 160000), 16000, format="OGG")
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"OggS")])
    with pytest.raises(AudioError, match="clip: truncated, its last part is missing"):
        read_recording(path)


def test_a_format_that_hides_truncation_is_refused(tmp_path, noise):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, format="VOC")
    with pytest.raises(AudioError, match="clip: in VOC kwsd cannot tell whether a recording is whole; convert it to W"):
        read_recording(path)


# Of each container: places of the sizes that a pipe leaves out, behind these bytes, and the format of a size.
SIZES = {
    "RIFF": ("WAV", "LITTLE", [(b"RIFF", 0), (b"data", 0)], "<I"),
    "RIFX": ("WAV", "BIG", [(b"RIFX", 0), (b"data", 0)], ">I"),
    "RF64": ("RF64", None, [(b"ds64", 4), (b"ds64", 12), (b"ds64", 20)], "<Q"),
    "AIFF": ("AIFF", None, [(b"FORM", 0), (b"SSND", 0)], ">I"),
    "AU": ("AU", None, [(b".snd", 4)], ">I"),
    "CAF": ("CAF", None, [(b"data", 0)], ">q"),
    "W64": ("W64", None, [(b"riff", 12), (b"data", 12)], "<Q"),
}


@pytest.mark.parametrize("size", ["zero", "-1", "largest", "largest signed"])
@pytest.mark.parametrize("container", SIZES)
def test_a_recording_from_a_pipe_reaches_to_the_end_of_the_file(tmp_path, noise, container, size):
    path = tmp_path / "clip"
    name, endian, places, form = SIZES[container]
    soundfile.write(path, noise, 16000, "PCM_16", endian, format=name)
    data, bits = bytearray(path.read_bytes()), 8 * struct.calcsize(form)
    value = {"zero": 0, "-1": 2**bits - 1, "largest": 2**bits - 2, "largest signed": 2 ** (bits - 1) - 1}[size]
    for mark, behind in places:
        at = data.index(mark) + len(mark) + behind
        struct.pack_into(form.upper(), data, at, value)
    path.write_bytes(data)
    samples, _ = read_recording(path)
    np.testing.assert_allclose(samples, noise, atol=2**-15)
    with open_recording(path) as file:
        assert file.frames == len(noise)
        np.testing.assert_array_equal(read_block(file, path, 10**6), samples)


def test_a_chunk_of_any_length_may_come_before_the_audio(tmp_path, noise):
    path = tmp_path / "clip"
    soundfile.write(path, noise, 16000, "FLOAT", format="WAV")
    data = path.read_bytes()
    at = data.index(b"data")
    junk = struct.pack("<4sI", b"JUNK", 200_000) + bytes(200_000)
    path.write_bytes(data[:4] + bytes(4) + data[8:at] + junk + b"data" + bytes(4) + data[at + 8 :])
    samples, _ = read_recording(path)
    np.testing.assert_array_equal(samples, noise)


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
