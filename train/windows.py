"""Scenes become the windows of an epoch, on every core, while the network trains.

The law of this file: an epoch is a function of the recordings, the hyper-parameters and its
number, so a resumed training meets the windows that it would have met. The features are the
product's (`kwsd.frontend`).

Which word a window holds: the one that ended last in it, if all of it is inside. Part of a
word, or speech that goes on, is `unknown`; a window that nearly holds a whole keyword is
nobody's and left out.
"""

from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from os import cpu_count
from typing import NamedTuple, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.frontend import FrontendParams, log_spectrogram, resample
from train import augment
from train.data import CLIP_SAMPLES, RATE_HZ
from train.hyperparameters import Hyperparameters
from train.material import Material
from train.scenes import Scene, Style, compose, noise_bed

IntArray = NDArray[np.int64]

_SCENE_SECONDS = 30.0
_CLIPS = 30  # in one run of lone clips
_AMBIGUOUS = -1


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that an epoch depends on, beside its number."""

    material: Material
    params: FrontendParams
    window_frames: int
    hyper: Hyperparameters


def window_frames(params: FrontendParams) -> int:
    """Frames in a window of one second."""
    return params.n_frames(params.sample_rate_hz)


class Epochs:
    """Makes the coming epoch in other processes while the present one is trained on.

    A context manager; `epoch(n)` gives what an epoch is made of.
    """

    def __init__(self, recipe: Recipe, n_epochs: int) -> None:
        self._recipe, self._n_epochs = recipe, n_epochs
        self._n_jobs = -(-recipe.hyper.windows_per_epoch // _windows_per_job(recipe.hyper))
        self._pending: dict[int, deque[Future[Batch]]] = {}

    def __enter__(self) -> Self:
        self._pool = ProcessPoolExecutor(cpu_count(), get_context("spawn"), _initialise, (self._recipe,))
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def epoch(self, number: int) -> "Batch":
        """At least `windows_per_epoch` windows, and more of `unknown` to mine the hardest from."""
        for ahead in (number, number + 1):
            if ahead < self._n_epochs and ahead not in self._pending:
                jobs = (self._pool.submit(_job, ahead, index) for index in range(self._n_jobs))
                self._pending[ahead] = deque(jobs)
        jobs_done = self._pending.pop(number)
        batches = []
        while jobs_done:
            batches.append(jobs_done.popleft().result())
        return Batch(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))


class Batch(NamedTuple):
    """Windows (n, window_frames, n_bands), float16, the words in them (n,), and candidates.

    The candidates, (m, window_frames, n_bands), are further windows of `unknown`.
    """

    windows: NDArray[np.float16]
    words: IntArray
    candidates: NDArray[np.float16]


def words_in_windows(scene: Scene, n_windows: int, hop: int, n_samples: int, n_labels: int) -> IntArray:
    """Which word each window of a scene holds.

    Args:
        n_windows, hop, n_samples: windows begin every `hop` samples and have `n_samples`.
        n_labels: the last two labels are silence and unknown.

    Shape: -> (n_windows,), index into the material's words, -1 for nobody's.
    """
    silence, unknown = n_labels - 2, n_labels - 1
    starts = np.arange(n_windows) * hop
    ends = starts + n_samples
    background = np.full(n_windows, silence)
    for said in scene.spoken:
        overlap = np.minimum(ends, said.end) - np.maximum(starts, said.start)
        background[overlap > min(0.3 * (said.end - said.start), 0.1 * RATE_HZ)] = unknown
    words = background.copy()
    for said in scene.spoken:
        duration = said.end - said.start
        ended = ends >= said.end
        words[ended] = background[ended]
        words[ended & (starts <= said.start + 0.3 * duration)] = _AMBIGUOUS
        words[ended & (starts <= said.start)] = said.word
        words[~ended & (ends >= said.end - 0.15 * duration)] = _AMBIGUOUS
    return words


_recipe: Recipe  # of this worker process


def _initialise(recipe: Recipe) -> None:
    global _recipe
    _recipe = recipe


def _windows_per_job(hyper: Hyperparameters) -> int:
    return 4 * hyper.windows_per_scene + _lone(hyper) * _CLIPS


def _lone(hyper: Hyperparameters) -> int:
    """Runs of lone clips for four scenes."""
    return round(4 * hyper.windows_per_scene * hyper.lone_clips / (1 - hyper.lone_clips) / _CLIPS)


def _job(epoch: int, index: int) -> Batch:
    """Windows of four scenes, and of as many lone clips as belong to them."""
    hyper = _recipe.hyper
    random = np.random.default_rng((hyper.seed, epoch, index))
    parts = [_from_scene(_recipe, random) for _ in range(4)]
    parts += [_from_clips(_recipe, random) for _ in range(_lone(hyper))]
    x, y, more = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    for windows in (x, more):
        _mask(windows, hyper, random)
    return Batch(x.astype(np.float16), y, more.astype(np.float16))


def _from_scene(recipe: Recipe, random: np.random.Generator) -> tuple[FloatArray, IntArray, FloatArray]:
    """Windows of one scene, keywords at every place in the window, parts of them, and all else; and candidates."""
    hyper, params = recipe.hyper, recipe.params
    style = _WORDS if random.random() < hyper.word_scenes else _SPEECH
    scene = compose(recipe.material, style, _SCENE_SECONDS, random)
    windows = _windows(scene.samples, recipe, random)
    hop = params.hop_samples * RATE_HZ // params.sample_rate_hz
    n_labels = len(recipe.material.labels)
    words = words_in_windows(scene, len(windows), hop, CLIP_SAMPLES, n_labels)
    is_keyword = (words >= 0) & (words < n_labels - 2)
    shares = np.zeros(len(words))
    for group, share in (
        (is_keyword, hyper.keyword_share),
        (words == n_labels - 2, hyper.silence_share),
        (words >= n_labels - 1, 1 - hyper.keyword_share - hyper.silence_share),
    ):
        shares[group] = share / max(1, np.count_nonzero(group))
    chosen = random.choice(len(words), hyper.windows_per_scene, p=shares / shares.sum())
    others = np.flatnonzero((words >= n_labels - 1) & ~_touches_keyword(scene, len(words), hop, n_labels))
    n_more = min(len(others), round(hyper.windows_per_scene * hyper.mined_share * hyper.mined_from))
    return windows[chosen], words[chosen], windows[random.choice(others, n_more, replace=False)]


def _touches_keyword(scene: Scene, n_windows: int, hop: int, n_labels: int) -> NDArray[np.bool_]:
    """Which windows hold any part of a keyword: too much like one to be mined. Shape: -> (n_windows,)."""
    starts = np.arange(n_windows) * hop
    touches = np.zeros(n_windows, bool)
    for said in scene.spoken:
        if said.word < n_labels - 2:
            touches |= (starts < said.end) & (starts + CLIP_SAMPLES > said.start)
    return touches


def _from_clips(recipe: Recipe, random: np.random.Generator) -> tuple[FloatArray, IntArray, FloatArray]:
    """Windows that each hold one clip as it was recorded, as `kwsd label` meets them; no candidates."""
    material, params, hyper = recipe.material, recipe.params, recipe.hyper
    samples = np.zeros(_CLIPS * CLIP_SAMPLES, np.float32)
    words = np.empty(_CLIPS, np.int64)
    n_keywords = len(material.keywords)
    max_shift = round(hyper.shift_seconds * RATE_HZ)
    level_db = random.uniform(-40, -10)
    for slot in range(_CLIPS):
        kind = int(random.integers(n_keywords + 1 + (len(material.others) > 0)))
        piece, words[slot] = np.zeros(CLIP_SAMPLES, np.float32), n_keywords
        if kind != n_keywords:  # which is silence
            group = material.keywords[kind] if kind < n_keywords else material.others
            index = random.choice(group)
            piece, words[slot] = material.samples(index), material.word_of[index]
            level = augment.rms(piece[material.onsets[index] : material.ends[index]])
            piece *= np.float32(10 ** ((level_db + random.normal(0, 3.0)) / 20) / max(level, 1e-5))
            if random.random() < 0.3:
                piece = augment.change_speed(piece, random.uniform(0.9, 1.12))
        at = slot * CLIP_SAMPLES
        samples[at : at + CLIP_SAMPLES] = augment.place(piece, CLIP_SAMPLES, max_shift, random)
    snr_db = random.uniform(3, 30) if random.random() < hyper.clip_noise else 60.0
    samples += noise_bed(material, len(samples), level_db - snr_db, _WORDS, random)
    windows = _windows(augment.limit(samples), recipe, random)
    frames_per_second = params.sample_rate_hz // params.hop_samples
    return windows[::frames_per_second], words, windows[:0]


def _windows(samples: FloatArray, recipe: Recipe, random: np.random.Generator) -> FloatArray:
    """All windows of some samples, through a microphone of its own colour.

    Shape: (n_samples,) at 16 kHz -> (n_windows, window_frames, n_bands), float32, a view.
    """
    params, hyper = recipe.params, recipe.hyper
    features = log_spectrogram(resample(samples, RATE_HZ, params.sample_rate_hz), params)
    knots = random.uniform(-hyper.colour_db, hyper.colour_db, 5) * np.log(10) / 10
    curve = np.interp(np.linspace(0, 4, params.n_bands), np.arange(5), knots)
    features += curve.astype(np.float32)
    if random.random() < hyper.dull_share:
        top = int(random.integers(params.n_bands * 2 // 3, params.n_bands))
        features[:, top:] = np.minimum(features[:, top:], np.log(params.log_floor) + random.uniform(0, 5))
    return sliding_window_view(features, recipe.window_frames, axis=0).transpose(0, 2, 1)


def _mask(windows: FloatArray, hyper: Hyperparameters, random: np.random.Generator) -> None:
    """Hide a stretch of time and of bands behind the window's mean (SpecAugment, Park et al., 2019)."""
    n, n_frames, n_bands = windows.shape
    means = windows.mean(axis=(1, 2), keepdims=True)
    for axis, length, most in ((1, n_frames, hyper.mask_frames), (2, n_bands, hyper.mask_bands)):
        width = random.integers(0, most + 1, (n, 1)) * (random.random((n, 1)) < hyper.mask_share)
        first = (random.random((n, 1)) * (length - width + 1)).astype(int)
        at = np.arange(length)
        hidden = np.expand_dims((at >= first) & (at < first + width), 3 - axis)
        np.copyto(windows, means, where=hidden)


_WORDS = Style()
_SPEECH = replace(Style(), keyword=1.0, other=0.1, cut=0.1, double=0.1, speech=0.8, close=0.8, level_spread_db=4.0)
