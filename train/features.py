"""Clips become features, once: computed on all cores, kept on disk, found again by digest.

The law of this file: the features are the product's (`kwsd.frontend`). The cache's key is a
digest of all that the features depend on, so a change of the front end, the recordings, the
augmentation or the seed can never meet stale features.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soxr
from numpy.lib.format import open_memmap
from tqdm import tqdm

import kwsd.audio
import kwsd.frontend
import train.augment
import train.data
from kwsd.audio import FloatArray
from kwsd.frontend import FrontendParams, clip_features
from train.augment import add_noise, coloured_noise, limit, place
from train.data import (
    CLIP_SAMPLES,
    RATE_HZ,
    SILENCE,
    UNKNOWN,
    Clip,
    Corpus,
    balanced,
    cut_at_random,
    noise_parts,
    read_clip,
)
from train.hyperparameters import Hyperparameters

_BLOCK_CLIPS = 256
_NOISE_FLOOR_DB = -80.0
_FINEST_NOISE_DB = 60.0  # signal-to-noise ratio of the faint noise that every clip gets


@dataclass(frozen=True, slots=True)
class Examples:
    """Features and what they are.

    Attributes:
        x: shape (n_clips, window_frames, n_bands), float32, mapped from disk.
        y: shape (n_clips,), int64, index into the labels.
        clips: what each was made of.
    """

    x: FloatArray
    y: np.ndarray
    clips: list[Clip]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a clip becomes one window: augmented for training, or as it is."""

    params: FrontendParams
    window_frames: int
    augmented: bool
    hyper: Hyperparameters
    noises: tuple[Clip, ...] = ()


def training_examples(corpus: Corpus, params: FrontendParams, hyper: Hyperparameters, cache: Path) -> Examples:
    """Augmented windows: each variant has all keywords, other unknowns and new cuts of noise."""
    clips: list[Clip] = []
    for variant in range(hyper.n_variants):
        random = np.random.default_rng((hyper.seed, variant))
        clips += balanced(corpus, "training", hyper.n_silence, hyper.unknown_ratio, hyper.speech_ratio, random)
    noises = tuple(noise_parts(corpus, "training"))
    recipe = Recipe(params, window_frames(params), augmented=True, hyper=hyper, noises=noises)
    return _examples(clips, corpus, recipe, cache, "training features")


def held_out_examples(corpus: Corpus, split: str, params: FrontendParams, cache: Path) -> Examples:
    """Windows as `kwsd label` would see them, balanced as the official test set is."""
    random = np.random.default_rng(0)  # the same clips whatever a training's seed was
    n_keyword = sum(clip.label != UNKNOWN for clip in corpus.clips[split]) / (len(corpus.labels) - 2)
    clips = balanced(corpus, split, round(n_keyword) if corpus.noises else 0, 1.0, 0.0, random)
    recipe = Recipe(params, window_frames(params), augmented=False, hyper=Hyperparameters())
    return _examples(clips, corpus, recipe, cache, f"{split} features")


def window_frames(params: FrontendParams) -> int:
    """Frames in a window of one second."""
    return params.n_frames(params.sample_rate_hz)


def waveform(clip: Clip, recipe: Recipe, index: int) -> FloatArray:
    """The samples of one example, seeded by its index. Shape: -> (any,) or (CLIP_SAMPLES,)."""
    samples = read_clip(clip)
    if not recipe.augmented:
        return samples
    hyper = recipe.hyper
    random = np.random.default_rng((hyper.seed, index))
    samples = place(samples, CLIP_SAMPLES, round(hyper.shift_seconds * RATE_HZ), random)
    if clip.label != SILENCE:
        samples = samples * np.float32(10 ** (random.uniform(hyper.gain_low_db, hyper.gain_high_db) / 20))
    audible = clip.label != SILENCE and random.random() < hyper.noise_probability
    snr_db = random.uniform(hyper.snr_low_db, hyper.snr_high_db) if audible else _FINEST_NOISE_DB
    return limit(add_noise(samples, _noise(recipe, random), snr_db, _NOISE_FLOOR_DB))


def _noise(recipe: Recipe, random: np.random.Generator) -> FloatArray:
    if random.random() < 0.25 or not recipe.noises:  # colours that no recording has
        return coloured_noise(CLIP_SAMPLES, random.uniform(0, 2), random)
    [cut] = cut_at_random(list(recipe.noises), 1, random)
    start = cut.start
    noise = _noise_recording(replace(cut, start=0, n_samples=-1))[start : start + CLIP_SAMPLES]
    return np.resize(noise, CLIP_SAMPLES)


@lru_cache(maxsize=1024)
def _noise_recording(clip: Clip) -> FloatArray:
    return read_clip(clip)


def _examples(clips: list[Clip], corpus: Corpus, recipe: Recipe, cache: Path, what: str) -> Examples:
    path = cache / f"{_digest(clips, recipe)}.npy"
    if not path.exists():
        _compute(clips, recipe, path, what)
    y = np.array([corpus.labels.index(clip.label) for clip in clips])
    return Examples(np.load(path, mmap_mode="r"), y, clips)


def _compute(clips: list[Clip], recipe: Recipe, path: Path, what: str) -> None:
    """Fill a memory-mapped file block by block; it gets its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(clips), recipe.window_frames, recipe.params.n_bands)
    part = path.with_suffix(f".{os.getpid()}.part")
    blocks = [(start, clips[start : start + _BLOCK_CLIPS]) for start in range(0, len(clips), _BLOCK_CLIPS)]
    try:
        x = open_memmap(part, "w+", np.float32, shape)
        with tqdm(total=len(clips), desc=what, unit=" clips") as bar:
            for start, block in _in_parallel(blocks, recipe):
                x[start : start + len(block)] = block
                bar.update(len(block))
        x.flush()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _in_parallel(blocks: list[tuple[int, list[Clip]]], recipe: Recipe) -> Iterator[tuple[int, FloatArray]]:
    if len(blocks) < 4:  # starting processes would take longer
        yield from ((start, _block(start, clips, recipe)) for start, clips in blocks)
        return
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        starts, groups = zip(*blocks, strict=True)
        yield from zip(starts, pool.map(_block, starts, groups, [recipe] * len(blocks)), strict=True)


def _block(start: int, clips: list[Clip], recipe: Recipe) -> FloatArray:
    windows = [
        clip_features(waveform(clip, recipe, start + i), RATE_HZ, recipe.window_frames, recipe.params)
        for i, clip in enumerate(clips)
    ]
    return np.stack(windows)


def _digest(clips: list[Clip], recipe: Recipe) -> str:
    """Of the clips, the front end's digest, the hyper-parameters that matter, and the code."""
    hyper = {name: value for name, value in recipe.hyper.to_dict().items() if name not in _NOT_IN_FEATURES}
    digest = hashlib.sha256(recipe.params.digest.encode())
    digest.update(json.dumps(hyper if recipe.augmented else {}, sort_keys=True).encode())
    modules = (train.augment, train.data, kwsd.audio, kwsd.frontend)
    for source in (__file__, *(str(module.__file__) for module in modules)):
        digest.update(Path(source).read_bytes())
    digest.update(f"numpy {np.__version__} soxr {soxr.__version__}".encode())
    for clip in (*clips, *recipe.noises):
        modified = clip.path.stat().st_mtime_ns
        digest.update(f"{clip.path} {modified} {clip.start} {clip.n_samples} {clip.gain}\n".encode())
    return digest.hexdigest()


_NOT_IN_FEATURES = {"epochs", "batch_size", "learning_rate"}


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/kwsd`, or `~/.cache/kwsd`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kwsd"
