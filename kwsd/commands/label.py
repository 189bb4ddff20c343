"""`kwsd label`: a folder of clips becomes a `fname,label` file, as Kaggle wants it.

Law: the output appears whole or not at all. Finished clips are kept in a ledger beside it, so a
rerun continues after an interruption or a full disk. Each core reads clips, computes features and
runs the model by itself, so no core waits for another.
"""

import csv
import hashlib
import os
import sqlite3
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray
from kwsd.commands.ledger import Ledger
from kwsd.core.clip import N_VIEWS, ClipWindows, clip_posteriors, clip_views
from kwsd.core.model import Model, load_model
from kwsd.errors import AudioError, OutputError
from kwsd.files import part_of, whole
from kwsd.sources.recording import read_recording
from kwsd.workers import begin_worker

JOB_CLIPS = 256
_WINDOWS_AT_ONCE = 32  # their features stay in the core's cache
_MOST_SECONDS = 600.0  # of a longer recording, the middle; `kwsd spot` is for those

_RULE = b"every window of a clip"  # changes with the rule, so that no ledger mixes two


@dataclass
class Summary:
    """What a run did.

    Attributes:
        counts: number of clips for each label.
        n_before: how many of them an earlier run had labelled.
        n_sharing: how many share their file name with another clip, and are therefore named by their path.
        unreadable: one error for each clip that could not be read.
    """

    counts: Counter[str] = field(default_factory=Counter)
    n_before: int = 0
    n_sharing: int = 0
    unreadable: list[AudioError] = field(default_factory=list)

    def complaints(self, folder: Path, output: Path) -> list[str]:
        """What the user should know about, a line each."""
        lines = [str(error) for error in self.unreadable]
        if self.n_sharing:
            lines.insert(0, f"{self.n_sharing} clips share their names; their fname is the path below {folder}")
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} clips could not be read and are not in {output}")
        return lines


def label_folder(
    folder: Path, output: Path, model: Model, scores: Path | None = None, augment: bool = False
) -> Summary:
    """Label every WAV below a folder.

    Args:
        output: receives `fname,label`, sorted by fname.
        model: each further core loads the same file on the same provider.
        scores: receives `fname` and the posterior of each label.
        augment: average over small shifts and gains, which takes five times as long.

    Raises:
        AudioError: there is no WAV.
        OutputError: a file cannot be written; the finished clips are kept for the next run.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    _check_targets(output, scores)
    summary = Summary()
    n_views = N_VIEWS if augment else 1
    path = _ledger(output)
    with _readable_errors(path), Ledger(path, _maker(model, n_views, folder)) as ledger:
        _find_clips(folder, ledger, summary)
        summary.n_sharing = ledger.n_sharing()
        for target in filter(None, (output, scores)):
            _refuse_clip(target, folder, ledger)
        _label_missing(_Labeller(model, folder, n_views), ledger, summary)
        labels = model.card.labels
        if scores:
            _write_csv(scores, ("fname", *labels), ((name, *_digits(row)) for name, row in ledger.done()))
        _write_csv(output, ("fname", "label"), _count(ledger, labels, summary.counts))
        ledger.remove()
    return summary


class _Labelled(NamedTuple):
    """The result of a job: clips, their posteriors, shape (n_paths, n_labels), and a line for each unreadable clip."""

    paths: list[bytes]
    posteriors: FloatArray
    unreadable: list[str]


@dataclass(frozen=True, slots=True)
class _Labeller:
    """Labels clips in the present process."""

    model: Model
    folder: Path
    n_views: int

    def label(self, paths: list[bytes]) -> _Labelled:
        """Label a job's clips, some at once."""
        card = self.model.card
        labelled: list[bytes] = []
        unreadable: list[str] = []
        of_views = [np.empty((0, len(card.labels)), np.float32)]
        clips: list[ClipWindows] = []
        for path in paths:
            try:
                recording, rate_hz = read_recording(self.folder / os.fsdecode(path), _MOST_SECONDS)
            except AudioError as error:
                unreadable.append(str(error))
                continue
            labelled.append(path)
            clips += clip_views(recording, rate_hz, card, self.n_views)
            if sum(len(clip.starts) for clip in clips) >= _WINDOWS_AT_ONCE:
                of_views.append(clip_posteriors(clips, card, self.model.posteriors))
                clips.clear()
        if clips:
            of_views.append(clip_posteriors(clips, card, self.model.posteriors))
        mean = np.concatenate(of_views).reshape(len(labelled), self.n_views, len(card.labels)).mean(axis=1)
        return _Labelled(labelled, card.with_unknown_odds(mean), unreadable)


def _label_missing(labeller: _Labeller, ledger: Ledger, summary: Summary) -> None:
    n_clips, n_done = ledger.counts()
    summary.n_before = n_done
    n_workers = min(len(os.sched_getaffinity(0)), -(-(n_clips - n_done) // JOB_CLIPS))
    results: Iterator[_Labelled]
    if n_workers < 2 or not _can_use_processes():
        results = (labeller.label(paths) for paths in ledger.missing(JOB_CLIPS))
    else:
        results = _label_in_pool(labeller, ledger, n_workers)
    with tqdm(total=n_clips, initial=n_done, desc="labelling", unit=" clips", disable=None) as bar:
        for one in results:
            ledger.add(one.paths, one.posteriors)
            summary.unreadable += map(AudioError, one.unreadable)
            bar.update(len(one.paths) + len(one.unreadable))


def _can_use_processes() -> bool:
    """Whether this system has what a pool needs: shared semaphores, which some containers and chroots lack."""
    try:
        get_context("spawn").Lock()
    except (ImportError, OSError):
        return False
    return True


def _label_in_pool(labeller: _Labeller, ledger: Ledger, n_workers: int) -> Iterator[_Labelled]:
    model, folder = labeller.model, labeller.folder
    arguments = (model.path, "cuda" if model.provider.startswith("CUDA") else "cpu", folder, labeller.n_views)
    jobs: deque[Future[_Labelled]] = deque()
    with ProcessPoolExecutor(n_workers, get_context("spawn"), _begin, arguments) as pool:
        try:
            for paths in ledger.missing(JOB_CLIPS):
                jobs.append(pool.submit(_work, paths))
                if len(jobs) > 2 * n_workers:
                    yield jobs.popleft().result()
            while jobs:
                yield jobs.popleft().result()
        except BrokenProcessPool:
            raise OutputError(
                f"{folder}: a worker process was killed (out of memory?); the same command continues from here"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_of_worker: _Labeller  # of a worker process


def _begin(path: Path, device: str, folder: Path, n_views: int) -> None:
    global _of_worker
    begin_worker()
    _of_worker = _Labeller(load_model(path, device), folder, n_views)


def _work(paths: list[bytes]) -> _Labelled:
    return _of_worker.label(paths)


def _find_clips(folder: Path, ledger: Ledger, summary: Summary) -> None:
    found = ledger.find(folder)
    summary.unreadable += [AudioError(f"{os.fsdecode(error.filename)}: {error.strerror}") for error in found.errors]
    if not found.n_clips:
        if not ledger.counts()[1]:
            ledger.remove()
        raise AudioError(f"{folder}: no WAV files below it")


def _maker(model: Model, n_views: int, folder: Path) -> str:
    """Identifies everything that posteriors depend on except for the clips."""
    made_of = model.path.read_bytes() + bytes([n_views]) + _RULE + os.fsencode(folder.resolve())
    return hashlib.sha256(made_of).hexdigest()


def _count(ledger: Ledger, labels: list[str], counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """Each clip's name and most probable label, which is added to the counts."""
    for name, posteriors in ledger.done():
        label = labels[int(np.argmax(posteriors))]
        counts[label] += 1
        yield name, label


def _digits(posteriors: FloatArray) -> list[str]:
    """Nine significant digits represent a float32 exactly, so the largest stays the largest."""
    return [f"{value:.9g}" for value in posteriors.tolist()]


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> None:
    # Names may be any bytes.
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())  # before the ledger is removed


def _ledger(output: Path) -> Path:
    return output.with_name(output.name + ".ledger")


def _check_targets(output: Path, scores: Path | None) -> None:
    """Before hours of work: can these files be written?"""
    for target in filter(None, (output, scores)):
        if target.exists() and not target.is_file():
            raise OutputError(f"{target}: is not a file; name a file to write")
        if not target.name or not os.access(target.parent, os.W_OK | os.X_OK):
            raise OutputError(f"{target}: cannot be written; its folder does not exist or is not writable")
    own = (output, _ledger(output), part_of(output))  # compared after resolving, since folders may be links
    if scores and scores.resolve() in {path.resolve() for path in own}:
        raise OutputError(f"{scores}: is used for the labels; name another file for the scores")


def _refuse_clip(target: Path, folder: Path, ledger: Ledger) -> None:
    inside = Path(os.path.relpath(target.absolute(), folder.absolute()))
    if ledger.has(inside):
        raise OutputError(f"{target}: is one of the clips; name another file to write")


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system report into one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            advice = "is in use; wait until the other run has ended, or name another output"
        elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            advice = f"cannot be resumed ({error}); remove it, or name another output"
        else:
            advice = f"cannot be written ({error}); the same command continues from here"
        raise OutputError(f"{path}: {advice}") from None
    except OSError as error:
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror}); the same command continues from here"
        ) from None
