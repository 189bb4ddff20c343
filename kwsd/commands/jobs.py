"""Jobs: what `kwsd label` does with a few recordings at a time, in as many processes as there are cores.

Law: each core reads recordings, computes features and runs the model by itself, so no core waits for
another. A recording's result does not depend on the others in its job.
"""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kwsd.commands.spot import spot
from kwsd.config import Config
from kwsd.core.clip import ClipWindows, clip_posteriors, clip_views
from kwsd.core.model import Model, load_model
from kwsd.corpus.source import Clip, Corpus
from kwsd.errors import AudioError, OutputError, UnreachableError
from kwsd.sources.recording import read_recording
from kwsd.workers import begin_worker, finished, uninterrupted

_WINDOWS_AT_ONCE = 32  # their features stay in the core's cache
_MOST_SECONDS = 600.0  # only the middle of a longer recording is labelled; `--spot` takes all of it


class Done(NamedTuple):
    """The result of a job.

    Attributes:
        paths: of the clips that were read; results: of each, an array, or one element of a structured array.
        unreadable, unreachable: a line for each clip that could not be read, or not be fetched this time.
    """

    paths: list[bytes]
    results: list[NDArray[Any]]
    unreadable: list[str]
    unreachable: list[str]


def labelled_type(n_labels: int) -> np.dtype[np.void]:
    """The result of a labelled clip: the seconds that were heard, and its posteriors."""
    return np.dtype([("seconds", "f8"), ("posteriors", "f4", (n_labels,))])


@dataclass(frozen=True, slots=True)
class Labeller:
    """Labels clips: the result of each is of type `labelled_type`.

    Attributes:
        n_views: of each clip, over which posteriors are averaged.
    """

    model: Model
    corpus: Corpus
    n_views: int

    def __call__(self, job: list[Clip]) -> Done:
        card = self.model.card
        done = Done([], [], [], [])
        seconds: list[float] = []
        of_views = [np.empty((0, len(card.labels)), np.float32)]
        clips: list[ClipWindows] = []
        read = partial(read_recording, most_seconds=_MOST_SECONDS)
        for path, (recording, rate_hz) in _read_clips(self.corpus, job, read, done):
            done.paths.append(path)
            seconds.append(len(recording) / rate_hz)
            clips += clip_views(recording, rate_hz, card, self.n_views)
            if sum(len(clip.starts) for clip in clips) >= _WINDOWS_AT_ONCE:
                of_views.append(clip_posteriors(clips, card, self.model.posteriors))
                clips.clear()
        if clips:
            of_views.append(clip_posteriors(clips, card, self.model.posteriors))
        mean = np.concatenate(of_views).reshape(len(done.paths), self.n_views, len(card.labels)).mean(axis=1)
        results = np.empty(len(done.paths), labelled_type(len(card.labels)))
        results["seconds"], results["posteriors"] = seconds, card.with_unknown_odds(mean)
        return done._replace(results=list(results))


DETECTIONS = np.dtype([("label", "i4"), ("score", "f8"), ("start_seconds", "f8"), ("end_seconds", "f8")])
"""A detection; `label` is an index into the model's labels."""


@dataclass(frozen=True, slots=True)
class Finder:
    """Finds keywords in recordings of any length: the result of each is its detections, of type `DETECTIONS`."""

    model: Model
    corpus: Corpus
    n_views: int = 1

    def __call__(self, job: list[Clip]) -> Done:
        done = Done([], [], [], [])
        for path, found in _read_clips(self.corpus, job, self._detections, done):
            done.paths.append(path)
            done.results.append(found)
        return done

    def _detections(self, file: Path) -> NDArray[np.void]:
        labels, events = self.model.card.labels, spot(file, self.model, Config())
        found = [(labels.index(one.label), one.score, one.start_seconds, one.end_seconds) for one in events]
        return np.array(found, DETECTIONS)


T = TypeVar("T")


def _read_clips(corpus: Corpus, job: list[Clip], read: Callable[[Path], T], done: Done) -> Iterator[tuple[bytes, T]]:
    """Yield each clip's path and `read(file)`. A clip that cannot be read is noted in `done`."""
    for clip, file in corpus.read(job):
        shown = corpus.shown(clip.path)
        if isinstance(file, AudioError):
            lines = done.unreachable if isinstance(file, UnreachableError) else done.unreadable
            lines.append(str(file) if shown in str(file) else f"{shown}: {file}")
            continue
        try:
            result = read(file)
        except AudioError as error:
            done.unreadable.append(str(error).replace(str(file), shown))
            continue
        yield clip.path, result


Worker = Labeller | Finder


def run_jobs(worker: Worker, jobs: Iterable[list[Clip]], n_jobs: int) -> Generator[Done, None, None]:
    """Run jobs on all cores; one worker process for each further core loads the same model.

    Args:
        n_jobs: their number; a few run in the present process.

    Raises:
        OutputError: a worker process was killed.
    """
    n_workers = min(len(os.sched_getaffinity(0)), n_jobs)
    if n_workers < 2 or not _can_use_processes():
        yield from map(worker, jobs)
        return
    device = "cuda" if worker.model.provider.startswith("CUDA") else "cpu"
    arguments = (type(worker), worker.model.path, device, worker.corpus, worker.n_views)
    running: deque[Future[Done]] = deque()
    try:
        with (
            TemporaryDirectory(prefix="kwsd-") as folder,  # of all workers' copies: one that is killed leaves some
            finished(ProcessPoolExecutor(n_workers, get_context("spawn"), _begin, (folder, *arguments))) as pool,
        ):
            for job in jobs:
                with uninterrupted():  # the first one starts the processes
                    running.append(pool.submit(_work, job))
                if len(running) > 2 * n_workers:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
    except BrokenProcessPool:
        raise OutputError(
            f"{worker.corpus.name}: a worker process was killed (out of memory?); the same command continues from here"
        ) from None


def _can_use_processes() -> bool:
    """Whether this system has what a pool needs: shared semaphores, which some containers and chroots lack."""
    try:
        get_context("spawn").Lock()
    except (ImportError, OSError):
        return False
    return True


_of_process: Callable[[list[Clip]], Done]  # of a worker process


def _begin(folder: str, kind: type[Worker], path: Path, device: str, corpus: Corpus, n_views: int) -> None:
    global _of_process
    begin_worker()
    tempfile.tempdir = folder
    _of_process = kind(load_model(path, device), corpus, n_views)


def _work(job: list[Clip]) -> Done:
    return _of_process(job)
