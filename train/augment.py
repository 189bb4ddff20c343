"""Waveforms as a stream brings them: shifted, louder or softer, with noise over all of it.

The law of this file: functions of samples and a random generator, nothing else, so that a
seed repeats them.
"""

import numpy as np

from kwsd.audio import FloatArray


def place(samples: FloatArray, n_samples: int, max_shift: int, random: np.random.Generator) -> FloatArray:
    """Put a clip somewhere into `n_samples`.

    A short clip lands anywhere inside, with padding on both sides; a long enough one is
    shifted by at most `max_shift` samples either way.

    Shape: (any,) -> (n_samples,), float32.
    """
    slack = n_samples - len(samples)
    low, high = (0, slack) if slack > 2 * max_shift else (slack // 2 - max_shift, slack // 2 + max_shift)
    offset = int(random.integers(low, high + 1))
    placed = np.zeros(n_samples, np.float32)
    source = samples[max(0, -offset) : max(0, n_samples - offset)]
    placed[max(0, offset) : max(0, offset) + len(source)] = source
    return placed


def add_noise(samples: FloatArray, noise: FloatArray, snr_db: float, floor_db: float) -> FloatArray:
    """Lay noise over the whole window, padding included.

    Args:
        samples, noise: shape (n_samples,), float32.
        snr_db: power of the samples over power of the noise.
        floor_db: the noise is never below this level (dB full scale), so that padding is
            never digital silence, which no stream has.
    """
    signal_rms, noise_rms = _rms(samples), _rms(noise)
    if noise_rms == 0:
        return samples
    wanted_rms = max(signal_rms * 10 ** (-snr_db / 20), 10 ** (floor_db / 20))
    return samples + noise * np.float32(wanted_rms / noise_rms)


def coloured_noise(n_samples: int, exponent: float, random: np.random.Generator) -> FloatArray:
    """Noise with a power spectrum of 1/f**exponent: 0 is white, 1 pink, 2 brown.

    Shape: -> (n_samples,), float32, root mean square 1.
    """
    spectrum = np.fft.rfft(random.standard_normal(n_samples))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, n_samples)
    return (noise / _rms(noise)).astype(np.float32)


def limit(samples: FloatArray) -> FloatArray:
    """Clip at full scale, as a converter does."""
    return np.clip(samples, -1.0, 1.0)


def _rms(samples: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
