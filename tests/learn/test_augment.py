"""Augmentation: position, level, and noise everywhere."""

import numpy as np
import pytest

from kwsd.learn.augment import add_noise, coloured_noise, limit, place


@pytest.fixture
def random():
    return np.random.default_rng(0)


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=float))))


def test_short_clips_are_padded_on_both_sides_at_random(random):
    clip = np.ones(4000, np.float32)
    starts = [int(np.flatnonzero(place(clip, 16000, 1600, random))[0]) for _ in range(300)]
    assert min(starts) < 500
    assert max(starts) > 11500
    assert place(clip, 16000, 1600, random).sum() == 4000


def test_whole_clips_are_shifted_by_at_most_the_limit(random):
    clip = np.arange(1, 16001, dtype=np.float32)
    for _ in range(100):
        placed = place(clip, 16000, 1600, random)
        shift = int(np.argmax(placed == 8000)) - 7999
        assert abs(shift) <= 1600
        assert len(placed) == 16000
    assert len(place(np.ones(40000, np.float32), 16000, 1600, random)) == 16000


def test_noise_covers_the_padding_at_the_requested_ratio(random):
    clip = np.zeros(16000, np.float32)
    clip[6000:10000] = 0.5
    noise = random.standard_normal(16000).astype(np.float32)
    noisy = add_noise(clip, noise, 20, -80)
    assert rms(noisy - clip) == pytest.approx(rms(clip) / 10, rel=1e-3)
    assert np.all(noisy[:6000] != 0)


def test_digital_silence_gets_noise_at_the_floor_level(random):
    noisy = add_noise(np.zeros(16000, np.float32), coloured_noise(16000, 1.0, random), 60, -80)
    assert 20 * np.log10(rms(noisy)) == pytest.approx(-80, abs=0.1)


@pytest.mark.parametrize(("exponent", "ratio_db"), [(0.0, 0.0), (1.0, 10.0), (2.0, 20.0)])
def test_the_slope_of_coloured_noise_follows_its_exponent(random, exponent, ratio_db):
    power = np.abs(np.fft.rfft(coloured_noise(160000, exponent, random))) ** 2
    low, high = power[900:1100].mean(), power[9000:11000].mean()  # a decade apart
    assert 10 * np.log10(low / high) == pytest.approx(ratio_db, abs=1.0)


def test_limit_clips_samples_to_full_scale():
    assert limit(np.array([-3, 0.5, 2], np.float32)).tolist() == [-1, 0.5, 1]
