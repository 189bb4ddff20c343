"""`kwsd label`: a folder of clips becomes a `fname,label` file, as Kaggle wants it, or a list of detections.

Law: the output appears whole or not at all. Finished clips are kept in a ledger beside it, so a
rerun continues after an interruption or a full disk.
"""

import csv
import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray
from kwsd.commands.jobs import DETECTIONS, Finder, Labeller, Worker, run_jobs
from kwsd.commands.ledger import Ledger
from kwsd.core.clip import N_VIEWS
from kwsd.core.model import Model
from kwsd.errors import AudioError, OutputError
from kwsd.files import part_of, whole

JOB_CLIPS = 256
_JOB_RECORDINGS = 2

_LABEL_RULE, _SPOT_RULE = b"every window of a clip", b"detections"
"""Each changes with what is computed, so that no ledger mixes two."""


@dataclass
class Summary:
    """What a run did.

    Attributes:
        counts: number of clips, or of detections, for each label.
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
    worker = Labeller(model, folder, N_VIEWS if augment else 1)
    labels = model.card.labels
    with _ledger_of(worker, _LABEL_RULE, output, scores, summary) as ledger:
        _run_missing(worker, ledger, summary, JOB_CLIPS)
        if scores:
            _write_csv(scores, ("fname", *labels), ((name, *_digits(row)) for name, row in _posteriors(ledger)))
        _write_csv(output, ("fname", "label"), _count(ledger, labels, summary.counts))
        ledger.remove()
    return summary


def spot_folder(folder: Path, output: Path, model: Model) -> Summary:
    """Find the keywords in every WAV below a folder, with the model's own thresholds.

    Args:
        output: receives `fname,label,score,start_seconds,end_seconds`, sorted by fname and time.

    Raises:
        AudioError, OutputError: as `label_folder`.
    """
    if not folder.is_dir():
        raise AudioError(f"{folder}: no such folder")
    _check_targets(output, None)
    summary, worker = Summary(), Finder(model, folder)
    with _ledger_of(worker, _SPOT_RULE, output, None, summary) as ledger:
        _run_missing(worker, ledger, summary, _JOB_RECORDINGS)
        header = ("fname", "label", "score", "start_seconds", "end_seconds")
        _write_csv(output, header, _detections(ledger, model.card.labels, summary.counts))
        ledger.remove()
    return summary


@contextmanager
def _ledger_of(worker: Worker, rule: bytes, output: Path, scores: Path | None, summary: Summary) -> Iterator[Ledger]:
    """The ledger of an output, in which every clip of the folder stands."""
    path = _ledger(output)
    with _readable_errors(path), Ledger(path, _maker(worker, rule)) as ledger:
        _find_clips(worker.folder, ledger, summary)
        summary.n_sharing = ledger.n_sharing()
        for target in filter(None, (output, scores)):
            _refuse_clip(target, worker.folder, ledger)
        yield ledger


def _run_missing(worker: Worker, ledger: Ledger, summary: Summary, job_clips: int) -> None:
    n_clips, n_done = ledger.counts()
    summary.n_before = n_done
    jobs = run_jobs(worker, ledger.missing(job_clips), n_jobs=-(-(n_clips - n_done) // job_clips))
    with tqdm(total=n_clips, initial=n_done, desc="labelling", unit=" clips", disable=None) as bar:
        for one in jobs:
            ledger.add(one.paths, one.results)
            summary.unreadable += map(AudioError, one.unreadable)
            bar.update(len(one.paths) + len(one.unreadable))


def _find_clips(folder: Path, ledger: Ledger, summary: Summary) -> None:
    found = ledger.find(folder)
    summary.unreadable += [AudioError(f"{os.fsdecode(error.filename)}: {error.strerror}") for error in found.errors]
    if not found.n_clips:
        if not ledger.counts()[1]:
            ledger.remove()
        raise AudioError(f"{folder}: no WAV files below it")


def _maker(worker: Worker, rule: bytes) -> str:
    """Identifies everything that results depend on except for the clips."""
    made_of = worker.model.path.read_bytes() + bytes([worker.n_views]) + rule + os.fsencode(worker.folder.resolve())
    return hashlib.sha256(made_of).hexdigest()


def _count(ledger: Ledger, labels: list[str], counts: Counter[str]) -> Iterator[tuple[str, str]]:
    """Each clip's name and most probable label, which is added to the counts."""
    for name, posteriors in _posteriors(ledger):
        label = labels[int(np.argmax(posteriors))]
        counts[label] += 1
        yield name, label


def _posteriors(ledger: Ledger) -> Iterator[tuple[str, FloatArray]]:
    return ((name, np.frombuffer(result, np.float32)) for name, result in ledger.done())


def _detections(ledger: Ledger, labels: list[str], counts: Counter[str]) -> Iterator[tuple[str, ...]]:
    """A row for each detection, which is added to the counts."""
    for name, result in ledger.done():
        for label, score, start, end in np.frombuffer(result, DETECTIONS).tolist():
            counts[labels[label]] += 1
            yield name, labels[label], f"{score:.4f}", f"{start:.3f}", f"{end:.3f}"


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
