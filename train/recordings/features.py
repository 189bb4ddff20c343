"""Features of the held-out clips: of the second around the word, where a clip is longer."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray, fit_length
from kwsd.core.frontend import FrontendParams, clip_features
from kwsd.learn import augment
from kwsd.learn.takes import word_edges
from train.recordings.corpus import (
    CLIP_SAMPLES,
    RATE_HZ,
    Clip,
    Corpus,
    balanced,
    cut_at_random,
    noise_parts,
    read_clip,
    read_samples,
    second_around,
)
from train.recordings.windows import window_frames

_LONGER_SECONDS, _SOFTER_DB = (1.2, 4.0), (10.0, 40.0)


@dataclass(frozen=True, slots=True)
class Examples:
    """Features with their labels and clips.

    Attributes:
        x: shape (n_clips, window_frames, n_bands), float32.
        y: shape (n_clips,), int64, index into the labels.
        clips: the clip of each example.
        labels: of the corpus.
    """

    x: FloatArray
    y: np.ndarray
    clips: list[Clip]
    labels: tuple[str, ...]


def held_out_examples(corpus: Corpus, split: str, params: FrontendParams, snr_db: float | None = None) -> Examples:
    """Compute the features of a split's clips, which are the same for every model and every seed.

    Args:
        snr_db: adds noise at this signal-to-noise ratio to each clip, padded to a second. The noise is from the
            split's part of the noise recordings, or coloured without such recordings. None leaves clips unchanged.
    """
    random = np.random.default_rng(0)
    clips = balanced(corpus, split, random)
    noises = noise_parts(corpus, split)
    x = []
    for clip in tqdm(clips, desc=f"{split} features", unit=" clips", disable=None, leave=False):
        samples = read_clip(clip)
        if clip.n_samples > CLIP_SAMPLES:
            samples = samples[second_around(*word_edges(read_samples(clip)), clip.n_samples)]
        if snr_db is not None:
            samples = fit_length(samples, CLIP_SAMPLES)
            noise = _noise(noises, CLIP_SAMPLES, random)
            samples = augment.limit(augment.add_noise(samples, noise, snr_db, floor_db=-100))
        x.append(clip_features(samples, RATE_HZ, window_frames(params), params))
    y = np.array([corpus.labels.index(clip.label) for clip in clips])
    return Examples(np.stack(x), y, clips, corpus.labels)


def in_longer_noise(samples: FloatArray, noises: list[Clip], random: np.random.Generator) -> FloatArray:
    """A clip at a random place in 1.2 to 4 s of noise, as people record single words.

    The noise is 10 to 40 dB softer than the clip. Shape: (any,) -> (any,), float32.
    """
    n_samples = round(random.uniform(*_LONGER_SECONDS) * RATE_HZ)
    placed = augment.place(samples[:n_samples], n_samples, 0, random)
    level = augment.rms(samples) * 10 ** (-random.uniform(*_SOFTER_DB) / 20)
    noise = _noise(noises, n_samples, random)
    return augment.limit(placed + noise * np.float32(level / max(augment.rms(noise), 1e-9)))


def _noise(noises: list[Clip], n_samples: int, random: np.random.Generator) -> FloatArray:
    """A second of a noise recording, repeated; coloured noise without recordings. Shape: -> (n_samples,), float32."""
    noise = augment.coloured_noise(n_samples, random.uniform(0, 2), random)
    if noises:
        [cut] = cut_at_random(noises, 1, random)
        noise = np.resize(read_clip(cut), n_samples)
    return noise
