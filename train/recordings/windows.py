"""Turns scenes into the training examples of an epoch, on every core, while the network trains.

Law: an epoch depends only on the recordings, the hyper-parameters and its number, so a resumed
training gets the same examples. The features are the product's (`kwsd.core.frontend`).

An example is a stretch: some consecutive windows. A causal network computes all windows of a few
seconds for little more than the cost of one, and learns from every one of them. Other networks get
stretches of a single window.
"""

from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from os import sched_getaffinity
from typing import NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.core.frontend import FrontendParams, log_spectrogram, resample
from kwsd.core.rows import IntArray
from kwsd.errors import TrainingError
from kwsd.learn import augment
from kwsd.workers import begin_worker
from train.hyperparameters import Hyperparameters
from train.recordings.corpus import CLIP_SAMPLES, RATE_HZ, second_around
from train.recordings.material import Material
from train.recordings.scenes import Style, compose, noise_bed
from train.recordings.truth import AMBIGUOUS, words_in_windows

SCENE_SECONDS = 30
_SCENES_PER_JOB = 6
_CLIP_JITTER_FRAMES = 4


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that an epoch depends on except for its number.

    Attributes:
        n_windows: windows in a stretch.
        step_frames: frames between them.
    """

    material: Material
    params: FrontendParams
    window_frames: int
    n_windows: int
    step_frames: int
    hyper: Hyperparameters

    @property
    def stretch_frames(self) -> int:
        return self.window_frames + self.step_frames * (self.n_windows - 1)

    @property
    def n_stretches(self) -> int:
        """Stretches in an epoch."""
        return _n_jobs(self.hyper) * _SCENES_PER_JOB * self.hyper.microphones * _stretches_per_scene(self)


def window_frames(params: FrontendParams) -> int:
    """Frames in a window of one second."""
    return params.n_frames(params.sample_rate_hz)


class Stretches(NamedTuple):
    """Training examples.

    Attributes:
        x: shape (n, stretch_frames, n_bands), float16.
        words: the word of each window, shape (n, n_windows), or AMBIGUOUS.
        weights: how much each window counts, shape (n, n_windows), float32, about 1 on average.
    """

    x: NDArray[np.float16]
    words: IntArray
    weights: FloatArray


class Epochs:
    """Makes the next epoch in other processes while the network trains on the present one.

    A context manager.
    """

    def __init__(self, recipe: Recipe, n_epochs: int) -> None:
        self._recipe, self._n_epochs = recipe, n_epochs
        self._pending: dict[int, deque[Future[Stretches]]] = {}

    def __enter__(self) -> Self:
        n_processes, context = len(sched_getaffinity(0)), get_context("spawn")
        try:
            self._pool = ProcessPoolExecutor(n_processes, context, _initialise, (self._recipe,))
        except OSError as error:
            reason = f"no shared memory ({error.strerror}): is there room in /dev/shm, and may you write to it?"
            raise TrainingError(f"the processes that make scenes cannot be started, {reason}") from None
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def epoch(self, number: int) -> Stretches:
        """At least `scenes_per_epoch` scenes, cut into stretches, in the order of the jobs."""
        for ahead in (number, number + 1):
            if ahead < self._n_epochs and ahead not in self._pending:
                jobs = (self._pool.submit(_job, ahead, index) for index in range(_n_jobs(self._recipe.hyper)))
                self._pending[ahead] = deque(jobs)
        futures = self._pending.pop(number)
        parts = []
        try:
            while futures:
                parts.append(futures.popleft().result())
        except BrokenProcessPool:
            raise TrainingError(
                "a process that makes scenes was killed by the system (out of memory?); "
                "fewer scenes in an epoch need less: --set scenes_per_epoch=..."
            ) from None
        return _joined(parts)


def _n_jobs(hyper: Hyperparameters) -> int:
    return -(-hyper.scenes_per_epoch // _SCENES_PER_JOB)


def _stretches_per_scene(recipe: Recipe) -> int:
    """Stretches in a scene: as many as fit side by side; of single windows four for each second."""
    if recipe.n_windows == 1:
        return 4 * SCENE_SECONDS
    n_windows = SCENE_SECONDS * recipe.params.sample_rate_hz // recipe.params.hop_samples - recipe.window_frames
    return n_windows // (recipe.step_frames * recipe.n_windows)


def _joined(parts: list[Stretches]) -> Stretches:
    return Stretches(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


_recipe: Recipe  # of a worker process


def _initialise(recipe: Recipe) -> None:
    global _recipe
    begin_worker()
    _recipe = recipe


def _job(epoch: int, index: int) -> Stretches:
    """Make the stretches of some scenes."""
    random = np.random.default_rng((_recipe.hyper.seed, epoch, index))
    return _joined([_scene(_recipe, random) for _ in range(_SCENES_PER_JOB)])


def _scene(recipe: Recipe, random: np.random.Generator) -> Stretches:
    """Make the stretches of one scene, recorded by several microphones."""
    hyper, params = recipe.hyper, recipe.params
    lone = random.random() < hyper.lone_clips
    samples, words = (_lone_clips if lone else _composed)(recipe, random)
    weights = _weights(words, recipe) * np.float32(hyper.clip_weight if lone else 1)
    features = log_spectrogram(resample(samples, RATE_HZ, params.sample_rate_hz), params)
    heard = [_through_microphone(features, recipe, random) for _ in range(hyper.microphones)]
    return _joined([_cut(one, words, weights, recipe, random) for one in heard])


def _composed(recipe: Recipe, random: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """A scene's samples at 16 kHz, and the words of all its windows."""
    material, params = recipe.material, recipe.params
    style = _WORDS if random.random() < recipe.hyper.word_scenes else _SPEECH
    scene = compose(material, replace(style, voices=recipe.hyper.voices), SCENE_SECONDS, random)
    hop = params.hop_samples * RATE_HZ // params.sample_rate_hz
    n_windows = (len(scene.samples) - CLIP_SAMPLES) // hop + 1
    return scene.samples, words_in_windows(scene, n_windows, hop, CLIP_SAMPLES, len(material.labels))


def _weights(words: IntArray, recipe: Recipe) -> FloatArray:
    """Windows of keywords count more, because there are fewer of them. Shape: as words."""
    keywords = words < len(recipe.material.labels) - 2
    weights = np.where(keywords, recipe.hyper.keyword_weight, 1.0)
    return np.where(words == AMBIGUOUS, 0.0, weights).astype(np.float32)


def _cut(
    features: FloatArray, words: IntArray, weights: FloatArray, recipe: Recipe, random: np.random.Generator
) -> Stretches:
    """Cut stretches that follow each other. Single windows are drawn at random, by their weights."""
    n_windows, step = recipe.n_windows, recipe.step_frames
    if n_windows == 1:
        likely = weights.astype(np.float64)
        starts = random.choice(len(words), _stretches_per_scene(recipe), p=likely / likely.sum())
        weights = np.ones_like(weights)
    else:
        starts = random.integers(step) + step * n_windows * np.arange(_stretches_per_scene(recipe))
    at = starts[:, None] + step * np.arange(n_windows)
    x = sliding_window_view(features, recipe.stretch_frames, axis=0)[starts].transpose(0, 2, 1)
    _mask(x, recipe.hyper, random)
    return Stretches(x.astype(np.float16), words[at], weights[at])


def _lone_clips(recipe: Recipe, random: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Single clips, one a second, as in a folder for `kwsd label`, and the words of all windows."""
    material, hyper = recipe.material, recipe.hyper
    samples = np.zeros(SCENE_SECONDS * CLIP_SAMPLES, np.float32)
    frames_per_second = recipe.params.sample_rate_hz // recipe.params.hop_samples
    words = np.full((SCENE_SECONDS - 1) * frames_per_second + 1, AMBIGUOUS)
    n_keywords = len(material.keywords)
    max_shift = round(hyper.shift_seconds * RATE_HZ)
    level_db = random.uniform(-40, -10)
    for slot in range(SCENE_SECONDS):
        kind = int(random.integers(n_keywords + 1 + (len(material.others) > 0)))
        piece, word = np.zeros(CLIP_SAMPLES, np.float32), n_keywords
        if kind != n_keywords:  # n_keywords stands for silence
            group = material.keywords[kind] if kind < n_keywords else material.others
            index = random.choice(group)
            onset, end = int(material.onsets[index]), int(material.ends[index])
            piece, word = material.samples(index), int(material.word_of[index])
            level = augment.rms(piece[onset:end])
            piece = piece[second_around(onset, end, len(piece))]
            piece *= np.float32(10 ** ((level_db + random.normal(0, 3.0)) / 20) / max(level, 1e-5))
            if random.random() < 0.3:
                piece = augment.change_speed(piece, random.uniform(0.9, 1.12))
        at = slot * CLIP_SAMPLES
        samples[at : at + CLIP_SAMPLES] = augment.place(piece, CLIP_SAMPLES, max_shift, random)
        at = slot * frames_per_second
        words[max(0, at - _CLIP_JITTER_FRAMES) : at + _CLIP_JITTER_FRAMES + 1] = word
    snr_db = random.uniform(3, 30) if random.random() < hyper.clip_noise else 60.0
    samples += noise_bed(material, len(samples), level_db - snr_db, _WORDS, random)
    return augment.limit(samples), words


def _through_microphone(features: FloatArray, recipe: Recipe, random: np.random.Generator) -> FloatArray:
    """Apply a random gain and frequency response. Shape: (n_frames, n_bands) -> the same, float32."""
    params, hyper = recipe.params, recipe.hyper
    knots = random.uniform(-hyper.gain_db, hyper.gain_db) + random.uniform(-hyper.colour_db, hyper.colour_db, 5)
    curve = np.interp(np.linspace(0, 4, params.n_bands), np.arange(5), knots * np.log(10) / 10)
    heard: FloatArray = features + curve.astype(np.float32)
    if random.random() < hyper.dull_share:
        top = int(random.integers(params.n_bands * 2 // 3, params.n_bands))
        heard[:, top:] = np.minimum(heard[:, top:], np.log(params.log_floor) + random.uniform(0, 5))
    return np.maximum(heard, np.log(np.float32(params.log_floor)))


def _mask(x: FloatArray, hyper: Hyperparameters, random: np.random.Generator) -> None:
    """Replace a range of frames and of bands by the mean (SpecAugment, D. Park et al., 2019)."""
    n, n_frames, n_bands = x.shape
    means = x.mean(axis=(1, 2), keepdims=True)
    for axis, length, most in ((1, n_frames, hyper.mask_frames), (2, n_bands, hyper.mask_bands)):
        width = random.integers(0, most + 1, (n, 1)) * (random.random((n, 1)) < hyper.mask_share)
        first = (random.random((n, 1)) * (length - width + 1)).astype(int)
        at = np.arange(length)
        hidden = np.expand_dims((at >= first) & (at < first + width), 3 - axis)
        np.copyto(x, means, where=hidden)


_WORDS = Style()
_SPEECH = replace(Style(), keyword=1.0, other=0.1, cut=0.1, double=0.1, speech=0.8, close=0.8, level_spread_db=4.0)
