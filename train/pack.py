"""Makes the pack of `kwsd learn` (see `kwsd.learn.pack`) from the recordings."""

import hashlib
from itertools import chain, zip_longest

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kwsd.audio import FloatArray
from kwsd.core.model import Model
from kwsd.errors import TrainingError
from kwsd.learn.graft import Graphs
from kwsd.learn.pack import NOISE, SPEECH, Pack, pack_of
from kwsd.learn.trunk import Trunk, spans_of
from train.recordings.corpus import RATE_HZ, Clip, Corpus, read_clip, speaker_of

_SHARES = {SPEECH: 0.6, "words": 0.3, NOISE: 0.1}
_MOST_NAMES = 256


def make_pack(model: Model, corpus: Corpus, hours: float, attribution: str) -> Pack:
    """Make a pack for a model from speech, words and noise of a corpus, in two halves of different speakers.

    Args:
        hours: of both halves together.

    Raises:
        TrainingError: the corpus lacks speech, words or noise in one half, or has too many words.
    """
    trunk = Trunk(Graphs(model.path), model.card, model.path)
    clips = [clip for group in corpus.clips.values() for clip in group]
    speech = [clip for group in corpus.speech.values() for clip in group]
    if not speech:
        raise TrainingError("a pack needs speech without keywords; give --speech")
    names = [SPEECH, NOISE, *sorted({clip.path.parent.name for clip in clips})]
    if len(names) > _MOST_NAMES:
        raise TrainingError(f"{corpus.root}: {len(names) - 2} words; a pack holds at most {_MOST_NAMES - 2}")
    random = np.random.default_rng(0)
    halves = []
    for half in (0, 1):
        parts = [
            _spans(_drawn(group, half, _SHARES[kind] * hours / 2, random), kind, names, trunk)
            for kind, group in ((SPEECH, speech), ("words", clips), (NOISE, corpus.noises))
        ]
        for (_, kinds), what in zip(parts, ("speech", "words", "noise"), strict=True):
            if not len(kinds):
                raise TrainingError(
                    f"a pack needs {what} in both halves, which differ in their speakers; give more of it"
                )
        halves.append((np.concatenate([spans for spans, _ in parts]), np.concatenate([kinds for _, kinds in parts])))
    return pack_of(names, halves, trunk.digest, attribution)


def _half(clip: Clip) -> int:
    """The half that a recording belongs to, by its speaker."""
    return hashlib.sha256(speaker_of(clip.path.stem).encode(errors="surrogateescape")).digest()[0] % 2


def _drawn(clips: list[Clip], half: int, hours: float, random: np.random.Generator) -> list[Clip]:
    """Clips of a half in random order, until they last long enough. Each word comes as often as the others."""
    own = [clip for clip in clips if _half(clip) == half]
    by_word: dict[str, list[Clip]] = {}
    for index in random.permutation(len(own)):
        by_word.setdefault(own[index].path.parent.name, []).append(own[index])
    drawn, n_left = [], hours * 3600 * RATE_HZ
    for clip in filter(None, chain(*zip_longest(*by_word.values()))):
        if n_left <= 0:
            break
        drawn.append(clip)
        n_left -= clip.n_samples
    return drawn


def _spans(clips: list[Clip], kind: str, names: list[str], trunk: Trunk) -> tuple[FloatArray, NDArray[np.uint8]]:
    """The spans of recordings that follow each other, and the kind of each."""
    parts, kinds = [], []
    for group in tqdm(_batches(clips), kind, unit=" batches", disable=None):
        samples = np.concatenate([read_clip(clip) for clip in group])
        spans = spans_of(trunk.steps(samples))
        ends = np.cumsum([clip.n_samples for clip in group])
        at = np.minimum((np.arange(len(spans)) + 1) * len(samples) / len(spans), len(samples) - 1)
        own = [names.index(clip.path.parent.name if kind == "words" else kind) for clip in group]
        parts.append(spans)
        kinds.append(np.array(own, np.uint8)[np.searchsorted(ends, at, side="right")])
    empty = np.empty((0, parts[0].shape[1] if parts else 0), np.float32)
    return np.concatenate([empty, *parts]), np.concatenate([np.empty(0, np.uint8), *kinds])


def _batches(clips: list[Clip], seconds: float = 60.0) -> list[list[Clip]]:
    """Groups of clips that last about a minute each."""
    groups: list[list[Clip]] = [[]]
    n_samples = 0
    for clip in clips:
        if n_samples > seconds * RATE_HZ:
            groups.append([])
            n_samples = 0
        groups[-1].append(clip)
        n_samples += clip.n_samples
    return [group for group in groups if group]
