"""A tiny corpus in the official layout: three words of synthetic speech, noise, 40 speakers."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

WORDS = ("yes", "no", "tree")
SPEAKERS = [f"{n:08x}" for n in range(40)]


def word(index: int, random: np.random.Generator) -> np.ndarray:
    """Make a sound that differs between words as vowels do: two formants that glide."""
    n_samples = int(16000 * random.uniform(0.6, 1.0))
    seconds = np.arange(n_samples) / 16000
    glide = np.linspace(1, (1.3, 0.7, 1.0)[index], n_samples)
    formants = ((300, 2200), (700, 1100), (450, 3000))[index]
    sound = sum(np.sin(2 * np.pi * np.cumsum(f * glide * random.uniform(0.95, 1.05)) / 16000) for f in formants)
    envelope = np.exp(-(((seconds - seconds[-1] / 2) / 0.15) ** 2))
    return 0.2 * envelope * sound + 0.002 * random.standard_normal(n_samples)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    for index, name in enumerate(WORDS):
        (folder / name).mkdir()
        for speaker in SPEAKERS:
            soundfile.write(folder / name / f"{speaker}_nohash_0.wav", word(index, random), 16000, subtype="PCM_16")
    (folder / "_background_noise_").mkdir()
    noise = 0.1 * random.standard_normal(16000 * 12)
    soundfile.write(folder / "_background_noise_" / "hiss.wav", noise, 16000, subtype="PCM_16")
    return folder
