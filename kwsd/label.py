"""Offline: a folder of clips becomes a `fname,label` file, as Kaggle wants it.

The law of this file: the output appears whole or not at all. Finished clips are kept in a
ledger beside it, so a rerun after an interruption or a full disk goes on where it stopped.
Every core reads, makes features and infers by itself, so none waits for another.
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
from typing import NamedTuple, TextIO, TypedDict

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray, fit_length
from kwsd.card import ModelCard
from kwsd.errors import AudioError, OutputError
from kwsd.frontend import clip_samples, log_spectrogram
from kwsd.ledger import Ledger
from kwsd.model import Model, load_model
from kwsd.recording import read_recording
from kwsd.workers import begin_worker

JOB_CLIPS = 256
_RUN_WINDOWS = 32  # more in a run are no faster
_MIDDLE_SECONDS = 60.0  # of a long recording: far more than its middle second needs

_VIEWS = ((0.0, 1.0), (-0.06, 1.0), (0.06, 1.0), (0.0, 0.5), (0.0, 2.0))
"""Shift in seconds and gain. Only the first without `augment`."""

N_VIEWS = len(_VIEWS)


class _Encoding(TypedDict):
    encoding: str
    errors: str


_TEXT: _Encoding = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may be any bytes


@dataclass
class Summary:
    """How many clips got which label, how many of them in an earlier run, and which could not be read."""

    counts: Counter[str] = field(default_factory=Counter)
    n_before: int = 0
    unreadable: list[AudioError] = field(default_factory=list)


def label_folder(
    folder: Path, output: Path, model: Model, scores: Path | None = None, augment: bool = False
) -> Summary:
    """Label every WAV below a folder.

    Args:
        output: gets `fname,label`, sorted by fname.
        model: each core loads it anew, on the same provider.
        scores: gets `fname` and the posterior of each label.
        augment: average over small shifts and gains, at five times the work.

    Raises:
        AudioError: there is no WAV at all.
        OutputError: a file cannot be written; what is finished is kept for the next run.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    for target in filter(None, (output, scores)):
        _check_target(target)
    own = (output, _ledger(output), _part(output))  # resolved, since folders may be links
    if scores and scores.resolve() in {path.resolve() for path in own}:
        raise OutputError(f"{scores}: is written for the labels; name another file for the scores")
    summary = Summary()
    n_views = N_VIEWS if augment else 1
    made_of = model.path.read_bytes() + bytes([n_views]) + os.fsencode(folder.resolve())
    maker = hashlib.sha256(made_of).hexdigest()
    path = _ledger(output)
    with _saying_what_cannot_be_written(path), Ledger(path, maker) as ledger:
        found = ledger.look(folder, lambda error: summary.unreadable.append(_closed(error)))
        if not found:
            if not ledger.counts()[1]:
                ledger.remove()
            raise AudioError(f"{folder}: no WAV files below it")
        for target in filter(None, (output, scores)):
            _refuse_clip(target, folder, ledger)
        _label_missing(folder, model, n_views, ledger, summary)
        labels = model.card.labels
        if scores:
            _write_csv(scores, ("fname", *labels), ((name, *_digits(row)) for name, row in ledger.done()))
        _write_csv(output, ("fname", "label"), _counted(ledger, labels, summary.counts))
        ledger.remove()
    return summary


def _label_missing(folder: Path, model: Model, n_views: int, ledger: Ledger, summary: Summary) -> None:
    n_clips, n_done = ledger.counts()
    summary.n_before = n_done
    n_workers = min(len(os.sched_getaffinity(0)), -(-(n_clips - n_done) // JOB_CLIPS))
    if not n_workers:
        return
    arguments = (model.path, "cuda" if model.provider.startswith("CUDA") else "cpu", folder, n_views)
    jobs: deque[Future[_Labelled]] = deque()
    with (
        tqdm(total=n_clips, initial=n_done, desc="labelling", unit=" clips", disable=None) as bar,
        ProcessPoolExecutor(n_workers, get_context("spawn"), _begin_worker, arguments) as pool,
    ):
        try:
            for paths in ledger.missing(JOB_CLIPS):
                jobs.append(pool.submit(_label_clips, paths))
                if len(jobs) > 2 * n_workers:
                    _keep(jobs.popleft().result(), ledger, summary, bar)
            while jobs:
                _keep(jobs.popleft().result(), ledger, summary, bar)
        except BrokenProcessPool:
            raise OutputError(
                f"{folder}: a process that labelled has ended (no memory left?); the same command goes on from here"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


class _Labelled(NamedTuple):
    """What a job gives: clips and their posteriors, shape (n_paths, n_labels), and what could not be read."""

    paths: list[bytes]
    posteriors: FloatArray
    unreadable: list[str]


def _keep(labelled: _Labelled, ledger: Ledger, summary: Summary, bar: "tqdm[None]") -> None:
    ledger.add(labelled.paths, labelled.posteriors)
    summary.unreadable += map(AudioError, labelled.unreadable)
    bar.update(len(labelled.paths) + len(labelled.unreadable))


_worker: tuple[Model, Path, int]  # of a worker process: what labels there


def _begin_worker(path: Path, device: str, folder: Path, n_views: int) -> None:
    global _worker
    begin_worker()
    _worker = load_model(path, device), folder, n_views


def _label_clips(paths: list[bytes]) -> _Labelled:
    """A job, a few clips at a time: what was just read is in the core's cache when its features are made."""
    model, folder, n_views = _worker
    labelled: list[bytes] = []
    of_views = [np.empty((0, len(model.card.labels)), np.float32)]
    unreadable = []
    n_at_once = max(1, _RUN_WINDOWS // n_views)
    for start in range(0, len(paths), n_at_once):
        samples = []
        for path in paths[start : start + n_at_once]:
            try:
                recording, rate_hz = read_recording(folder / os.fsdecode(path), _MIDDLE_SECONDS)
            except AudioError as error:
                unreadable.append(str(error))
            else:
                labelled.append(path)
                samples.append(views(recording, rate_hz, model.card, n_views))
        if samples:
            of_views.append(model.posteriors(log_spectrogram(np.concatenate(samples), model.card.frontend)))
    mean = np.concatenate(of_views).reshape(len(labelled), n_views, len(model.card.labels)).mean(axis=1)
    return _Labelled(labelled, model.card.clip_posteriors(mean), unreadable)


def views(samples: FloatArray, rate_hz: int, card: ModelCard, n_views: int = N_VIEWS) -> FloatArray:
    """A clip as it is, then shifted and louder and softer: what `augment` averages over.

    Shape: (n_samples,) at `rate_hz` -> (n_views, window_samples) at the model's rate, float32.
    """
    second = round(card.window_samples / card.frontend.sample_rate_hz * rate_hz)
    if n_views > 1:  # room to shift a short clip into
        samples = fit_length(samples, max(len(samples), second))
    return np.stack(
        [
            clip_samples(gain * _shifted(samples, round(seconds * rate_hz)), rate_hz, card.window_frames, card.frontend)
            for seconds, gain in _VIEWS[:n_views]
        ]
    )


def _shifted(samples: FloatArray, n_samples: int) -> FloatArray:
    """Later by so many samples, or earlier if negative; what leaves is lost."""
    if n_samples == 0:
        return samples
    if n_samples > 0:
        return np.pad(samples, (n_samples, 0))[: len(samples)]
    return np.pad(samples, (0, -n_samples))[-n_samples:]


def _counted(ledger: Ledger, labels: list[str], counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """Each clip's name and likeliest label, which is counted."""
    for name, posteriors in ledger.done():
        label = labels[int(np.argmax(posteriors))]
        counts[label] += 1
        yield name, label


def _digits(posteriors: FloatArray) -> list[str]:
    """Nine significant digits carry a float32 exactly, so the largest stays the largest."""
    return [f"{value:.9g}" for value in posteriors.tolist()]


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> None:
    """The file gets its name when all of it is written."""
    with _whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def _whole(path: Path) -> Iterator[TextIO]:
    part = _part(path)
    try:
        with part.open("w", newline="", **_TEXT) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # before the ledger goes
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _ledger(output: Path) -> Path:
    return output.with_name(output.name + ".ledger")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _check_target(target: Path) -> None:
    """Before hours of work: can this file be written?"""
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is not a file; name a file to write")
    if not target.name or not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: cannot be written; its folder does not exist or does not let you")


def _refuse_clip(target: Path, folder: Path, ledger: Ledger) -> None:
    inside = Path(os.path.relpath(target.absolute(), folder.absolute()))
    if ledger.has(inside):
        raise OutputError(f"{target}: is one of the clips; name another file to write")


def _closed(error: OSError) -> AudioError:
    return AudioError(f"{os.fsdecode(error.filename)}: {error.strerror}")


@contextmanager
def _saying_what_cannot_be_written(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            advice = "is in use; wait until the other run has ended, or name another output"
        elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            advice = f"cannot be gone on with ({error}); remove it, or name another output"
        else:
            advice = f"cannot be written ({error}); the same command goes on from here"
        raise OutputError(f"{path}: {advice}") from None
    except OSError as error:
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror}); the same command goes on from here"
        ) from None
