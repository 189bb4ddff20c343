"""Streaming and batch resampling agree; the spectrogram equals the notebook's (SciPy); tones land in their band."""

import numpy as np
import pytest
import scipy.signal

from kwsd.core.frontend import (
    LOGMEL_16K,
    PARAMETER_SETS,
    SPECTROGRAM_8K,
    Resampler,
    clip_features,
    log_spectrogram,
    resample,
)

SETS = list(PARAMETER_SETS.values())
RESAMPLER_TOLERANCE = 1e-6  # of full scale: soxr sums in float32, in blocks that depend on the chunks


def chunks_of(samples, size):
    return [samples[i : i + size] for i in range(0, len(samples), size)]


@pytest.mark.parametrize("params", SETS, ids=lambda p: p.name)
def test_frames_are_bit_identical_for_any_number_computed_at_once(params, noise):
    whole = log_spectrogram(noise, params)
    hop, size = params.hop_samples, params.frame_samples
    one_by_one = [log_spectrogram(noise[i * hop : i * hop + size], params) for i in range(len(whole))]
    np.testing.assert_array_equal(np.concatenate(one_by_one), whole)
    for n in (2, 5, 64):
        side_by_side = log_spectrogram(np.stack([noise] * n)[:, : 10 * hop + size], params)
        np.testing.assert_array_equal(side_by_side, np.stack([whole[:11]] * n))


@pytest.mark.parametrize("from_hz", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("to_hz", [8000, 16000])
@pytest.mark.parametrize("size", [1, 160, 509, 4410, 32000])
def test_streaming_resampler_equals_batch(from_hz, to_hz, size, noise):
    resampler = Resampler(from_hz, to_hz)
    parts = [resampler.push(chunk) for chunk in chunks_of(noise, size)]
    streamed = np.concatenate([*parts, resampler.flush()])
    whole = resample(noise, from_hz, to_hz)
    n_common = min(len(streamed), len(whole))
    assert abs(len(streamed) - len(whole)) <= 1
    np.testing.assert_allclose(streamed[:n_common], whole[:n_common], atol=RESAMPLER_TOLERANCE)


def test_the_resampler_keeps_the_band_and_removes_aliases():
    seconds = np.arange(48000) / 48000
    middle = slice(2000, 6000)
    passed = resample(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), 48000, 8000)[middle]
    stopped = resample(np.sin(2 * np.pi * 7000 * seconds).astype(np.float32), 48000, 8000)[middle]
    assert np.sqrt(np.mean(passed**2)) == pytest.approx(np.sqrt(0.5), rel=1e-3)
    assert np.sqrt(np.mean(stopped**2)) < 1e-4


def test_a_reset_clears_the_state_of_the_resampler(noise):
    resampler = Resampler(44100, 8000)
    first = np.concatenate([resampler.push(noise), resampler.flush()])
    resampler.reset()
    again = np.concatenate([resampler.push(noise), resampler.flush()])
    np.testing.assert_array_equal(first, again)


def test_spectrogram_8k_equals_scipys(noise):
    _, _, power = scipy.signal.spectrogram(noise, 8000, "hann", nperseg=160, noverlap=80, detrend=False)
    want = np.log(SPECTROGRAM_8K.log_floor + power.T.astype(np.float64))
    np.testing.assert_allclose(log_spectrogram(noise, SPECTROGRAM_8K), want, atol=1e-3)


def test_one_second_gives_the_frames_that_the_models_expect(noise):
    assert clip_features(noise, 16000, 99, SPECTROGRAM_8K).shape == (99, 81)
    assert clip_features(noise, 16000, 98, LOGMEL_16K).shape == (98, 40)
    assert SPECTROGRAM_8K.n_samples(99) == 8000
    assert LOGMEL_16K.n_samples(98) == 16000


@pytest.mark.parametrize("params", SETS, ids=lambda p: p.name)
def test_a_higher_tone_lands_in_a_higher_band(params):
    seconds = np.arange(params.sample_rate_hz) / params.sample_rate_hz
    bands = [
        int(np.argmax(log_spectrogram(np.sin(2 * np.pi * hz * seconds).astype(np.float32), params)[50]))
        for hz in (200, 500, 1000, 2000, 3500)
    ]
    assert bands == sorted(set(bands))
    if not params.n_mel_bands:
        assert bands == [4, 10, 20, 40, 70]  # 50 Hz a bin


def test_silence_gives_the_floor_and_less_than_a_frame_gives_no_frame():
    silence = log_spectrogram(np.zeros(8000, np.float32), SPECTROGRAM_8K)
    np.testing.assert_allclose(silence, np.log(SPECTROGRAM_8K.log_floor), rtol=1e-6)
    assert log_spectrogram(np.zeros(159, np.float32), SPECTROGRAM_8K).shape == (0, 81)


def test_the_digest_identifies_the_parameters():
    assert len({params.digest for params in SETS}) == len(SETS)
    assert SPECTROGRAM_8K.problems() == []
