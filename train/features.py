"""The held-out clips as the windows that `kwsd label` makes of them."""

from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray
from kwsd.frontend import FrontendParams, clip_features
from train.data import RATE_HZ, Clip, Corpus, balanced, read_clip
from train.windows import window_frames


@dataclass(frozen=True, slots=True)
class Examples:
    """Features and what they are.

    Attributes:
        x: shape (n_clips, window_frames, n_bands), float32.
        y: shape (n_clips,), int64, index into the labels.
        clips: what each was made of.
        labels: the corpus's.
    """

    x: FloatArray
    y: np.ndarray
    clips: list[Clip]
    labels: tuple[str, ...]


def held_out_examples(corpus: Corpus, split: str, params: FrontendParams) -> Examples:
    """The same clips for every model and every seed."""
    clips = balanced(corpus, split, np.random.default_rng(0))
    bar = tqdm(clips, desc=f"{split} features", unit=" clips", disable=None, leave=False)
    x = np.stack([clip_features(read_clip(clip), RATE_HZ, window_frames(params), params) for clip in bar])
    return Examples(x, np.array([corpus.labels.index(clip.label) for clip in clips]), clips, corpus.labels)
