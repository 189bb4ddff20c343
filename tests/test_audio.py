"""Audio from any file or device becomes mono float32, or a one-line error."""

import struct

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from kwsd.audio import PCM_ENCODINGS, PcmDecoder, PcmFormat, dbfs, decode_pcm, fit_length, to_mono
from kwsd.errors import AudioError
from kwsd.sources.recording import read_recording


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_every_sample_format_of_wav_gives_the_same_samples(write_wav, noise, subtype):
    samples, rate_hz = read_recording(write_wav("a.wav", noise, 22050, subtype))
    assert rate_hz == 22050
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, noise, atol=2 / 128 if subtype == "PCM_U8" else 1e-4)


def test_channels_are_averaged(write_wav):
    stereo = np.stack([np.full(100, 0.5), np.full(100, -0.25)], axis=1)
    samples, _ = read_recording(write_wav("stereo.wav", stereo))
    np.testing.assert_allclose(samples, 0.125, atol=1e-4)


def test_nan_and_infinity_are_removed():
    np.testing.assert_array_equal(to_mono(np.array([np.nan, np.inf, -np.inf, 0.5, 1e37])), [0, 1, -1, 0.5, 1])


@pytest.mark.parametrize(("encoding", "kind"), [("s16le", "<i2"), ("s32le", "<i4"), ("f32le", "<f4")])
def test_raw_pcm_decodes_to_the_same_samples(encoding, kind):
    values = np.array([0.0, 0.5, -1.0])
    scale = 1 if kind == "<f4" else 2 ** (8 * np.dtype(kind).itemsize - 1)
    np.testing.assert_allclose(decode_pcm((values * scale).astype(kind).tobytes(), encoding, 1), values)


def test_fit_length_centres_a_clip():
    np.testing.assert_array_equal(fit_length(np.ones(2, np.float32), 5), [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(fit_length(np.arange(6, dtype=np.float32), 2), [2, 3])


def test_loudness_of_a_full_scale_sine_is_3_db_below_a_square():
    assert dbfs(np.sin(np.arange(48000) / 10).astype(np.float32)) == pytest.approx(-3.01, abs=0.02)
    assert dbfs(np.zeros(10, np.float32)) == -120


def test_a_wav_header_without_a_length_is_accepted(write_wav, noise):
    """Programs that write to a pipe, such as ffmpeg, write 0xFFFFFFFF in place of the sizes."""
    path = write_wav("piped.wav", noise)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(data)
    assert len(read_recording(path)[0]) == len(noise)


def test_plain_wavs_give_the_samples_of_libsndfile(tmp_path, write_wav, noise):
    """kwsd itself reads 16-bit mono after a 44-byte header; libsndfile reads every other variant."""
    whole = write_wav("plain.wav", noise[:16000]).read_bytes()

    def with_data(data: bytes) -> bytes:
        return whole[:4] + struct.pack("<I", 36 + len(data)) + whole[8:40] + struct.pack("<I", len(data)) + data

    note = b"LIST" + struct.pack("<I", 4) + b"INFO"
    wavs = {
        "plain": whole,
        "of one sample": with_data(whole[-2:]),
        "longer": with_data(whole[44:] * 3),
        "with a note": whole[:4] + struct.pack("<I", len(whole) + 4) + whole[8:] + note,
        "with half a sample": with_data(whole[44:46] + b"\1"),
        "with other sizes": whole[:40] + struct.pack("<I", 2**31) + whole[44:],
        "of two channels": whole[:22] + struct.pack("<HIIH", 2, 16000, 64000, 4) + whole[34:],
        "of 8 bits": whole[:28] + struct.pack("<IHH", 16000, 1, 8) + whole[36:],
    }
    for name, data in wavs.items():
        path = tmp_path / f"{name}.wav"
        path.write_bytes(data)
        want, want_hz = soundfile.read(path, dtype="float32", always_2d=True)
        samples, rate_hz = read_recording(path)
        np.testing.assert_array_equal(samples, to_mono(want), err_msg=name)
        assert rate_hz == want_hz
    whole, _ = read_recording(tmp_path / "plain.wav")
    middle = len(whole) // 2
    np.testing.assert_array_equal(read_recording(tmp_path / "plain.wav", 0.25)[0], whole[middle - 2000 : middle + 2000])


def test_an_unreadable_file_is_named_in_one_line(tmp_path, write_wav, noise):
    whole = write_wav("whole.wav", noise).read_bytes()
    bad = {
        "empty.wav": (b"", "empty file"),
        "header.wav": (whole[:10], "truncated"),
        "half.wav": (whole[: len(whole) // 2], "truncated"),
        "text.wav": (b"to be or not to be, that is the question", "not a readable recording"),
        "pcm.raw": (bytes(32000), "raw PCM does not say its rate; pipe it to"),
        "no_samples.wav": (whole[:4] + struct.pack("<I", 36) + whole[8:40] + struct.pack("<I", 0), "no audio"),
    }
    for name, (content, reason) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AudioError, match=f"{name}: .*{reason}") as raised:
            read_recording(tmp_path / name)
        assert "\n" not in str(raised.value)
    with pytest.raises(AudioError, match="No such file"):
        read_recording(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="is a folder; name the recordings in it"):
        read_recording(tmp_path)


def test_flac_is_read_too(write_wav, noise):
    path = write_wav("a.flac", noise)
    assert soundfile.info(path).format == "FLAC"
    np.testing.assert_allclose(read_recording(path)[0], noise, atol=1e-4)


@pytest.mark.parametrize("encoding", ["s16le", "s32le", "f32le"])
@pytest.mark.parametrize("channels", [1, 3])
@given(sizes=st.lists(st.integers(0, 40), max_size=30))
@settings(deadline=None, max_examples=20)
def test_a_decoder_gives_the_same_samples_for_any_chunks(encoding, channels, sizes):
    values = np.random.default_rng(0).integers(-1000, 1000, 60 * channels)
    data = values.astype(PCM_ENCODINGS[encoding]).tobytes()
    decoder, taken, at = PcmDecoder(PcmFormat(encoding=encoding, channels=channels)), [], 0
    for size in sizes:
        decoder.push(data[at : at + size])
        at += size
        taken.append(decoder.take())
    whole = decode_pcm(data, encoding, channels)
    n_whole = min(at, len(data)) // (PCM_ENCODINGS[encoding].itemsize * channels)
    np.testing.assert_array_equal(np.concatenate([np.empty(0, np.float32), *taken]), whole[:n_whole])


def test_a_decoder_gives_at_most_the_requested_number_of_samples():
    decoder = PcmDecoder(PcmFormat())
    decoder.push(np.arange(10, dtype="<i2").tobytes() + b"\x01")
    assert decoder.n_samples == 10
    assert [len(decoder.take(4)) for _ in range(4)] == [4, 4, 2, 0]
    decoder.push(b"\x00")
    assert decoder.take().tolist() == [1 / 32768]
