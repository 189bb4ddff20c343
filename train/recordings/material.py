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
from kwsd.core.rows import IntArray
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
    starts: IntArray
    lengths: IntArray
    onsets: IntArray
    ends: IntArray
    word_of: IntArray
    keywords: tuple[IntArray, ...]
    others: IntArray
    speech: IntArray
    noises: IntArray

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
    n_words, n_speech = len(corpus.clips[split]), len(corpus.speech[split])
    samples = _mapped(path)
    onsets, ends = _edges(samples, starts, lengths, n_words)
    silent = [n for n in range(len(clips)) if is_silent(samples[starts[n] : starts[n] + lengths[n]], 32768)]
    _warn_of_silence([clips[n] for n in silent])
    words = _words(corpus)
    names = [clip.path.parent.name for clip in clips[:n_words]]
    names += [UNKNOWN] * n_speech + [SILENCE] * len(noises)
    word_of = np.array([words.index(name) for name in names])
    word_of[silent] = words.index(SILENCE)
    _check_keywords(corpus, split, words, word_of)
    of_words, of_speech, of_noises = np.split(np.arange(len(clips)), [n_words, n_words + n_speech])
    return Material(
        path=path,
        labels=corpus.labels,
        words=words,
        starts=starts,
        lengths=lengths,
        onsets=onsets,
        ends=ends,
        word_of=word_of,
        keywords=tuple(np.flatnonzero(word_of == words.index(word)) for word in corpus.labels[:-2]),
        others=of_words[word_of[of_words] >= len(corpus.labels)],
        speech=np.setdiff1d(of_speech, silent),
        noises=np.setdiff1d(of_noises, silent),
    )


def _edges(samples: NDArray[np.int16], starts: IntArray, lengths: IntArray, n_words: int) -> tuple[IntArray, IntArray]:
    """Where the word begins and ends in each recording. After the first `n_words`, all of a recording counts."""
    onsets, ends = np.zeros_like(lengths), lengths.copy()
    for n in range(n_words):
        onsets[n], ends[n] = word_edges(samples[starts[n] : starts[n] + lengths[n]])
    return onsets, ends


def _words(corpus: Corpus) -> tuple[str, ...]:
    """All words of a corpus: its labels, and then the other words in order."""
    every = {clip.path.parent.name for group in corpus.clips.values() for clip in group}
    return (*corpus.labels, *sorted(every - set(corpus.labels)))


def _check_keywords(corpus: Corpus, split: str, words: tuple[str, ...], word_of: IntArray) -> None:
    if missing := [word for word in corpus.labels[:-2] if words.index(word) not in word_of]:
        raise TrainingError(
            f"{corpus.root}: the {split} split has no recording of {', '.join(missing)}; splits are by speaker; "
            "add some, or remove _nohash_ from the names, so that each file counts as a speaker"
        )


def _warn_of_silence(clips: list[Clip]) -> None:
    """Name silent recordings. Scenes leave them out."""
    if clips:
        names = ", ".join(str(clip.path) for clip in clips[:_NAMED])
        more = f" and {len(clips) - _NAMED} more" if len(clips) > _NAMED else ""
        print(f"left out of scenes, because they hold only silence: {names}{more}", file=sys.stderr)


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
