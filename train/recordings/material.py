"""The recordings of one split as one array on disk, shared by all processes.

Law: recordings are read once, then only memory-mapped. Clips of words have the place where the
word begins and ends; all other recordings are only samples. Samples are int16, as recorded.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from tqdm import tqdm

from kwsd.audio import FloatArray, is_silent
from kwsd.errors import TrainingError
from kwsd.learn.takes import word_edges
from train.recordings.corpus import SILENCE, UNKNOWN, Clip, Corpus, noise_parts, read_samples

_READING = "any format, rounded to int16"  # changes with `read_samples`, so that no cache is out of date
_NAMED = 5  # recordings in one message


@dataclass(frozen=True, slots=True)
class Material:
    """The recordings that scenes are made of.

    Attributes:
        path: a `.npy` file of all samples, int16, one recording after the other.
        labels: of the model, with silence and unknown last.
        words: everything that a window can contain: the labels, then all other words of the corpus.
        starts, lengths: of each recording, in samples, shape (n_recordings,).
        onsets, ends: of the word in each recording, relative to its start; without a word, of the whole recording.
        word_of: index into `words`, shape (n_recordings,).
        keywords: for each keyword, the indices of its recordings.
        others, speech, noises: indices of other words, keyword-free speech and noise.
    """

    path: Path
    labels: tuple[str, ...]
    words: tuple[str, ...]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    onsets: NDArray[np.int64]
    ends: NDArray[np.int64]
    word_of: NDArray[np.int64]
    keywords: tuple[NDArray[np.int64], ...]
    others: NDArray[np.int64]
    speech: NDArray[np.int64]
    noises: NDArray[np.int64]

    def samples(self, index: int, start: int = 0, n_samples: int | None = None) -> FloatArray:
        """Read a recording or a part of it. Shape: -> (n_samples,), float32, full scale is 1."""
        first = self.starts[index] + start
        last = first + (self.lengths[index] - start if n_samples is None else n_samples)
        return _mapped(self.path)[first:last].astype(np.float32) / np.float32(32768)


def gather(corpus: Corpus, split: str, cache: Path, whole_noises: bool = False) -> Material:
    """Collect a split's recordings in one file in the cache, or reuse the file of an earlier call.

    Args:
        whole_noises: use all of each noise recording, not only the split's part.

    Raises:
        TrainingError: a recording cannot be read, or a keyword has no recording in this split.
    """
    noises = corpus.noises if whole_noises else noise_parts(corpus, split)
    clips = [*corpus.clips[split], *corpus.speech[split], *noises]
    path = cache / f"{_digest(clips)}.npy"
    if not path.exists():
        _read_all(clips, path, f"reading {split}")
    lengths = np.array([clip.n_samples for clip in clips], np.int64)
    starts = np.cumsum(lengths) - lengths
    n_words = len(corpus.clips[split])
    samples = _mapped(path)
    edges = [word_edges(samples[s : s + n]) for s, n in zip(starts[:n_words], lengths[:n_words], strict=True)]
    onsets, ends = np.zeros_like(lengths), lengths.copy()
    if edges:
        onsets[:n_words], ends[:n_words] = np.array(edges).T
    names = [clip.path.parent.name for clip in clips[:n_words]]
    every = {clip.path.parent.name for group in corpus.clips.values() for clip in group}
    words = (*corpus.labels, *sorted(every - set(corpus.labels)))
    kinds = [*names, *[UNKNOWN] * len(corpus.speech[split])]
    word_of = np.array([words.index(kind) for kind in kinds] + [words.index(SILENCE)] * (len(clips) - len(kinds)))
    silent = [n for n in range(len(clips)) if is_silent(samples[starts[n] : starts[n] + lengths[n]], 32768)]
    _warn_of_silence([clips[n] for n in silent])
    word_of[silent] = words.index(SILENCE)
    keywords = corpus.labels[:-2]
    if missing := [word for word in keywords if words.index(word) not in word_of]:
        advice = "splits are by speaker; add speakers, or take _nohash_ out of the names, so that each file is one"
        raise TrainingError(f"{corpus.root}: the {split} split has no recording of {', '.join(missing)}; {advice}")
    index = np.arange(len(clips))
    return Material(
        path,
        corpus.labels,
        words,
        starts,
        lengths,
        onsets,
        ends,
        word_of,
        tuple(index[word_of == words.index(word)] for word in keywords),
        others=index[: len(names)][word_of[: len(names)] >= len(corpus.labels)],
        speech=index[n_words : len(kinds)][word_of[n_words : len(kinds)] == words.index(UNKNOWN)],
        noises=np.setdiff1d(index[len(kinds) :], silent),
    )


def _warn_of_silence(clips: list[Clip]) -> None:
    """Name silent recordings. They are not learnt from."""
    if clips:
        names = ", ".join(str(clip.path) for clip in clips[:_NAMED])
        more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
        print(f"left out, because they hold only silence: {names}{more}", file=sys.stderr)


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/kwsd`, or `~/.cache/kwsd`.

    Raises:
        TrainingError: there is no home folder.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kwsd"
    except RuntimeError:
        raise TrainingError("no home folder for cached recordings; give --cache DIR") from None


def _read_all(clips: list[Clip], path: Path, what: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(
            f"{path.parent}: cannot be created ({error.strerror}); give --cache another folder"
        ) from None
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        samples = open_memmap(part, "w+", np.int16, (sum(clip.n_samples for clip in clips),))
        with part.open("r+b") as file:  # a full disk raises an error here; in mapped memory it would kill the process
            os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        at = 0
        for clip in tqdm(clips, desc=what, unit=" recordings", disable=None):
            samples[at : at + clip.n_samples] = read_samples(clip)
            at += clip.n_samples
        samples.flush()
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


@lru_cache(maxsize=8)
def _mapped(path: Path) -> NDArray[np.int16]:
    mapped: NDArray[np.int16] = np.load(path, mmap_mode="r")
    return mapped


def _digest(clips: list[Clip]) -> str:
    """Identify the samples by the path, modification time, start and length of each clip, and by how they are read."""
    lines = (f"{clip.path.resolve()} {clip.path.stat().st_mtime_ns} {clip.start} {clip.n_samples}" for clip in clips)
    return hashlib.sha256("\n".join([_READING, *lines]).encode(errors="surrogateescape")).hexdigest()
