"""Makes recordings sound like parts of a stream: shifted, louder or softer, with added noise.

Law: every function depends only on samples and a random generator, so a seed reproduces its result.
"""

import numpy as np

from kwsd.audio import FloatArray


def place(samples: FloatArray, n_samples: int, max_shift: int, random: np.random.Generator) -> FloatArray:
    """Put a clip at a random place in `n_samples` samples.

    A clip that is shorter by more than `2 * max_shift` is placed anywhere inside, with padding on both
    sides. Any other is shifted by at most `max_shift` samples from the middle, and may lose its beginning or end.

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
    """Add noise to the whole window, including its padding.

    Args:
        samples, noise: shape (n_samples,), float32.
        snr_db: power of the samples over power of the noise.
        floor_db: the noise is never below this level (dB full scale), so that padding is never
            digital silence, which does not occur in streams.
    """
    signal_rms, noise_rms = rms(samples), rms(noise)
    if noise_rms == 0:
        return samples
    wanted_rms = max(signal_rms * 10 ** (-snr_db / 20), 10 ** (floor_db / 20))
    return samples + noise * np.float32(wanted_rms / noise_rms)


def coloured_noise(n_samples: int, exponent: float, random: np.random.Generator) -> FloatArray:
    """Noise with a power spectrum of 1/f**exponent: 0 is white, 1 pink, 2 brown.

    Shape: -> (n_samples,), float32, root mean square 1.
    """
    n_bins = n_samples // 2 + 1
    spectrum = random.standard_normal(2 * n_bins, np.float32).view(np.complex64)  # of white noise
    spectrum[1:] *= np.arange(1, n_bins, dtype=np.float32) ** np.float32(-exponent / 2)
    spectrum[0] = 0
    noise: FloatArray = np.fft.irfft(spectrum, n_samples).astype(np.float32)
    return noise / np.float32(rms(noise))


def music(n_samples: int, rate_hz: int, random: np.random.Generator) -> FloatArray:
    """Music-like noise: three voices, each a sequence of notes with six harmonics that decay, over a beat of noise.

    Shape: -> (n_samples,), float32, root mean square 1.
    """
    samples = np.zeros(n_samples, np.float32)
    beat = round(random.uniform(0.3, 0.7) * rate_hz)
    root_hz = random.uniform(80, 200)
    for octave in (1, 2, 4):
        for start in range(0, n_samples, beat * int(random.integers(1, 4))):
            seconds = np.arange(min(2 * beat, n_samples - start)) / rate_hz
            note_hz = root_hz * octave * 2 ** (random.choice((0, 2, 4, 5, 7, 9, 11)) / 12)
            harmonics = sum(np.sin(2 * np.pi * note_hz * k * seconds) / k for k in range(1, 7))
            samples[start : start + len(seconds)] += (harmonics * np.exp(-3 * seconds)).astype(np.float32)
    for start in range(0, n_samples, beat):
        seconds = np.arange(min(beat, n_samples - start)) / rate_hz
        hit = random.standard_normal(len(seconds)) * np.exp(-30 * seconds)
        samples[start : start + len(seconds)] += hit.astype(np.float32)
    return samples / np.float32(rms(samples))


def limit(samples: FloatArray) -> FloatArray:
    """Clip at full scale, as an analogue-to-digital converter does."""
    return np.clip(samples, -1.0, 1.0)


def drifting_gain(n_samples: int, rate_hz: int, drift_db: float, random: np.random.Generator) -> FloatArray:
    """A gain that drifts by up to `drift_db` up and down, towards a new random value every two seconds.

    Shape: -> (n_samples,), float32.
    """
    n_knots = n_samples // (2 * rate_hz) + 2
    factors = (10 ** (random.uniform(-drift_db, drift_db, n_knots) / 20)).astype(np.float32)
    between = np.linspace(0, 1, 2 * rate_hz, endpoint=False, dtype=np.float32)
    gains: FloatArray = (factors[:-1, None] + np.diff(factors)[:, None] * between).ravel()[:n_samples]
    return gains


def change_speed(samples: FloatArray, factor: float) -> FloatArray:
    """Make audio faster and higher, or slower and lower, by linear interpolation.

    Shape: (n_samples,) -> (about n_samples / factor,), float32.
    """
    at = np.arange(0, len(samples) - 1, factor)
    changed: FloatArray = np.interp(at, np.arange(len(samples)), samples).astype(np.float32)
    return changed


def reverberate(samples: FloatArray, rate_hz: int, random: np.random.Generator) -> FloatArray:
    """Add the echoes of a room: after the direct sound, noise that decays exponentially (J. A. Moorer, 1979).

    The echoes decay by 60 dB in 0.1 to 0.6 s. Their energy is 3 to 20 dB below that of the direct
    sound.

    Shape: (n_samples,) -> (n_samples,), float32.
    """
    decay_seconds = random.uniform(0.1, 0.6)
    seconds = np.arange(round(0.7 * decay_seconds * rate_hz)) / rate_hz
    echoes = random.standard_normal(len(seconds)) * np.exp(-6.9 * seconds / decay_seconds)
    echoes[: round(0.002 * rate_hz)] = 0
    echoes *= 10 ** (random.uniform(-20, -3) / 20) / np.sqrt(np.sum(echoes**2))
    echoes[0] = 1
    n_fft = 1 << (len(samples) + len(echoes) - 2).bit_length()
    spectrum = np.fft.rfft(samples, n_fft) * np.fft.rfft(echoes.astype(np.float32), n_fft)
    room: FloatArray = np.fft.irfft(spectrum, n_fft)[: len(samples)].astype(np.float32)
    return room


def rms(samples: FloatArray) -> float:
    """Root mean square."""
    return float(np.sqrt(np.dot(samples, samples) / len(samples)))
