"""Features of the held-out clips, computed as `kwsd label` computes them."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray, fit_length
from kwsd.core.frontend import FrontendParams, clip_features
from train.recordings import augment
from train.recordings.corpus import CLIP_SAMPLES, RATE_HZ, Clip, Corpus, balanced, cut_at_random, noise_parts, read_clip
from train.recordings.windows import window_frames


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
        if snr_db is not None:
            samples = fit_length(samples, CLIP_SAMPLES)
            noise = augment.coloured_noise(CLIP_SAMPLES, random.uniform(0, 2), random)
            if noises:
                [cut] = cut_at_random(noises, 1, random)
                noise = np.resize(read_clip(cut), CLIP_SAMPLES)
            samples = augment.limit(augment.add_noise(samples, noise, snr_db, floor_db=-100))
        x.append(clip_features(samples, RATE_HZ, window_frames(params), params))
    y = np.array([corpus.labels.index(clip.label) for clip in clips])
    return Examples(np.stack(x), y, clips, corpus.labels)
