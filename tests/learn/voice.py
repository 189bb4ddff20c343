"""Words of a made-up language, spoken by a very simple synthesiser: a pulse train through two moving formants."""

from pathlib import Path

import numpy as np
import soundfile

WA_I_O = ((700, 1100), (300, 2300), (450, 800))
"""First and second formant, in Hz, at the beginning, the middle and the end."""


def say(formants, pitch_hz, seconds, rate_hz=16000):
    """A word with half a second of soft noise around it."""
    random = np.random.default_rng(int(pitch_hz * 1000))
    n = round(seconds * rate_hz)
    times = np.linspace(0, 1, len(formants))
    at = np.linspace(0, 1, n)
    phase = 2 * np.pi * np.cumsum(np.full(n, pitch_hz) * (1 + 0.1 * np.sin(3 * at))) / rate_hz
    word = np.zeros(n)
    for number in range(1, int(4000 / pitch_hz)):
        gain = sum(
            1 / (1 + ((number * pitch_hz - np.interp(at, times, track)) / width) ** 2)
            for track, width in zip(zip(*formants, strict=True), (90, 130), strict=True)
        )
        word += gain * np.sin(number * phase)
    word *= np.hanning(n) ** 0.3 / np.abs(word).max()
    silence = round(0.5 * rate_hz)
    return (0.3 * np.pad(word, silence) + 0.001 * random.standard_normal(n + 2 * silence)).astype(np.float32)


def write_takes(folder: Path, n: int, formants=WA_I_O, rate_hz=16000) -> list[Path]:
    """Takes by voices of different pitch and speed."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.wav" for number in range(n)]
    for number, path in enumerate(paths):
        soundfile.write(path, say(formants, 100 + 17 * number, 0.55 + 0.03 * number, rate_hz), rate_hz)
    return paths
