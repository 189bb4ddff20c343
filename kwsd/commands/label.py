"""`kwsd label`: the labels of a corpus of clips, as Kaggle wants them, or the detections in it.

Law: the output appears whole or not at all, and has every clip that could be read. Finished clips are
kept in a ledger beside it, so a rerun continues after an interruption, a full disk or an outage.
"""

import hashlib
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from kwsd.commands.jobs import Finder, Labeller, Worker, run_jobs
from kwsd.commands.tables import detection_header, label_header, scores_header, write_detections, write_labels
from kwsd.core.clip import N_VIEWS
from kwsd.core.model import Model
from kwsd.corpus.ledger import Ledger
from kwsd.corpus.remote import fingerprint
from kwsd.corpus.results import check_parquet, is_parquet, refuse_foreign
from kwsd.corpus.source import Corpus
from kwsd.errors import AudioError, OutputError, UnreachableError
from kwsd.files import part_of

_PROTOCOL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")  # pathlib makes a single slash of the two in s3://

JOB_CLIPS = 256
_JOB_RECORDINGS = 2

_LABEL_RULE, _SPOT_RULE = b"every window of a clip, and its seconds", b"detections"
"""Each changes with what is computed, so that no ledger mixes two."""


@dataclass
class Summary:
    """What a run did.

    Attributes:
        counts: number of clips, or of detections, for each label.
        n_before: how many clips an earlier run had finished.
        n_sharing: how many share their name with another clip, and are therefore called by their path.
        n_left: how many were lost with their workers.
        unreadable: an error for each clip that cannot be read, and for each part that cannot be listed.
        unreachable: the same for what a bucket or a server did not deliver this time.
    """

    counts: Counter[str] = field(default_factory=Counter)
    n_before: int = 0
    n_sharing: int = 0
    n_left: int = 0
    unreadable: list[AudioError] = field(default_factory=list)
    unreachable: list[AudioError] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether another run would find nothing to do."""
        return not self.unreachable and not self.n_left

    @property
    def is_complete(self) -> bool:
        """Whether the output has every clip."""
        return self.is_final and not self.unreadable

    def complaints(self, corpus: Corpus, output: Path) -> list[str]:
        """What the user should know about, a line each."""
        lines = [str(error) for error in (*self.unreadable, *self.unreachable)]
        if self.n_sharing and not is_parquet(output):
            lines.insert(0, f"{self.n_sharing} clips share their names; their fname is the path in {corpus.name}")
        if self.unreadable:
            lines.append(f"{len(self.unreadable)} errors; what could not be read is not in {output}")
        if self.unreachable:
            lines.append(f"{len(self.unreachable)} errors of a server or a network; the same command tries them again")
        if self.n_left:
            lines.append(f"{self.n_left} clips were lost with their workers; the same command tries them again")
        return lines


def label_corpus(
    corpus: Corpus,
    output: Path,
    model: Model,
    scores: Path | None = None,
    augment: bool = False,
    ray: str | None = None,
) -> Summary:
    """Label every clip of a corpus.

    Args:
        output: receives a table as `kwsd.commands.tables.write_labels` describes it, sorted by fname.
        model: each further core loads the same file on the same provider.
        scores: receives `fname` and the posterior of each label.
        augment: average over small shifts and gains, which takes five times as long.
        ray: address of a Ray cluster, or `local`; None for processes without Ray.

    Raises:
        AudioError: there is no clip, or none could be reached.
        OutputError: a file cannot be written; the finished clips are kept for the next run.
    """
    labels = model.card.labels
    _check_targets(output, label_header(output), ray)
    if scores:
        _check_scores(scores, scores_header(labels), output)
    worker = Labeller(model, corpus, N_VIEWS if augment else 1)
    with _open_ledger(worker, _LABEL_RULE, output, scores) as (ledger, summary):
        _run_missing(worker, ledger, summary, JOB_CLIPS, ray)
        summary.counts = write_labels(ledger, labels, output, scores)
    return summary


def spot_corpus(corpus: Corpus, output: Path, model: Model, ray: str | None = None) -> Summary:
    """Find the keywords in every recording of a corpus, with the model's own thresholds.

    Args:
        output: receives a table as `kwsd.commands.tables.write_detections` describes it, sorted by fname and time.

    Raises:
        AudioError, OutputError: as `label_corpus`.
    """
    _check_targets(output, detection_header(output), ray)
    worker = Finder(model, corpus)
    with _open_ledger(worker, _SPOT_RULE, output, None) as (ledger, summary):
        _run_missing(worker, ledger, summary, _JOB_RECORDINGS, ray)
        summary.counts = write_detections(ledger, model.card.labels, output)
    return summary


@contextmanager
def _open_ledger(worker: Worker, rule: bytes, output: Path, scores: Path | None) -> Iterator[tuple[Ledger, Summary]]:
    """Open an output's ledger, and enter all clips. At the end, remove it if no clip needs another try."""
    path, summary, corpus = _ledger_path(output), Summary(), worker.corpus
    with _readable_errors(path), Ledger(path, _maker(worker, rule)) as ledger:
        _find_clips(corpus, ledger, summary)
        summary.n_sharing = ledger.n_sharing()
        own = {fingerprint(one) for one in corpus.lists}
        for target in filter(None, (output, scores)):
            if (mark := fingerprint(target)) and (mark in own or ledger.has(mark)):
                raise OutputError(f"{target}: is an input of this run; name another file for the results")
        yield ledger, summary
        if summary.is_final:
            ledger.remove()


def _run_missing(worker: Worker, ledger: Ledger, summary: Summary, job_clips: int, ray: str | None) -> None:
    n_clips, n_done = ledger.counts()
    summary.n_before, n_failed = n_done, 0
    if n_done == n_clips:
        return
    jobs = ledger.missing(job_clips)
    if ray is None:
        results = run_jobs(worker, jobs, n_jobs=-(-(n_clips - n_done) // job_clips))
    else:
        from kwsd.commands.ray_jobs import run_on_ray

        results = run_on_ray(worker, jobs, ray)
    bar = tqdm(total=n_clips, initial=n_done, desc="labelling", unit=" clips", disable=None)
    with bar, closing(results):
        for one in results:
            ledger.add(one.paths, one.results)
            summary.unreadable += map(AudioError, one.unreadable)
            summary.unreachable += map(AudioError, one.unreachable)
            n_failed += len(one.unreadable) + len(one.unreachable)
            bar.update(len(one.paths) + len(one.unreadable) + len(one.unreachable))
    n_clips, n_done = ledger.counts()
    if summary.unreachable and not n_done:
        raise summary.unreachable[0]
    summary.n_left = n_clips - n_done - n_failed


def _find_clips(corpus: Corpus, ledger: Ledger, summary: Summary) -> None:
    unlisted: list[AudioError] = []
    with tqdm(corpus.find(unlisted), desc="listing", unit=" clips", disable=None, leave=False) as found:
        n_found = ledger.find(found, unlisted)
    for error in unlisted:
        (summary.unreachable if isinstance(error, UnreachableError) else summary.unreadable).append(error)
    if not n_found:
        raise unlisted[0] if unlisted else AudioError(f"{corpus.name}: {corpus.empty}")


def _maker(worker: Worker, rule: bytes) -> str:
    """Identifies everything that results depend on except for the clips."""
    kind = type(worker.corpus).__name__.encode()
    made_of = worker.model.path.read_bytes() + bytes([worker.n_views]) + rule + kind + worker.corpus.identity
    return hashlib.sha256(made_of).hexdigest()


def _ledger_path(output: Path) -> Path:
    return output.with_name(output.name + ".ledger")


def _check_targets(output: Path, header: list[str], ray: str | None) -> None:
    """Check, before hours of work, that the output can be written, and that the cluster answers."""
    _check_target(output)
    if is_parquet(output):
        check_parquet(output)
    refuse_foreign(output, header)
    if ray is not None:
        from kwsd.commands.ray_jobs import check_cluster

        check_cluster(ray)


def _check_scores(scores: Path, header: list[str], output: Path) -> None:
    _check_target(scores)
    own = (output, _ledger_path(output), part_of(output))  # compared after resolving, since folders may be links
    if scores.resolve() in {path.resolve() for path in own}:
        raise OutputError(f"{scores}: is used for the labels; name another file for the scores")
    if is_parquet(scores):
        raise OutputError(f"{scores}: scores are CSV; name it so, or name Parquet for the labels, which has the scores")
    refuse_foreign(scores, header)


def _check_target(target: Path) -> None:
    if _PROTOCOL.match(str(target)) and not target.parent.is_dir():
        address = str(target).replace(":/", "://", 1)
        raise OutputError(f"{address}: results are written to this machine; name a path, and copy the file")
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is not a file; name a file to write")
    if not target.name or not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: cannot be written; its folder does not exist or is not writable")


@contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system report into one line."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            advice = "is in use; wait until the other run has ended, or name another output"
        elif code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR):
            advice = f"cannot be resumed ({error}); remove it, or name another output"
        else:
            advice = f"cannot be written ({error}); the same command continues from here"
        raise OutputError(f"{path}: {advice}") from None
    except OSError as error:
        where = error.filename or path
        raise OutputError(
            f"{where}: cannot be written ({error.strerror}); the same command continues from here"
        ) from None
