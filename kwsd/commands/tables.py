"""The tables of `kwsd label`: a row for each clip, or for each detection, out of a ledger."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kwsd.audio import FloatArray
from kwsd.commands.jobs import DETECTIONS, labelled_type
from kwsd.corpus.ledger import Ledger
from kwsd.corpus.results import is_parquet, write_csv, write_parquet

_LABEL_COLUMNS = {"path": "string", "label": "string", "score": "float", "posteriors": "floats", "seconds": "double"}
_DETECTION_COLUMNS = {
    "path": "string",
    "label": "string",
    "score": "double",
    "start_seconds": "double",
    "end_seconds": "double",
}


def label_header(output: Path) -> list[str]:
    """The columns that `write_labels` writes to this path."""
    return list(_LABEL_COLUMNS) if is_parquet(output) else ["fname", "label"]


def scores_header(labels: list[str]) -> list[str]:
    """The columns of the scores that `write_labels` writes."""
    return ["fname", *labels]


def detection_header(output: Path) -> list[str]:
    """The columns that `write_detections` writes to this path."""
    return list(_DETECTION_COLUMNS) if is_parquet(output) else ["fname", *list(_DETECTION_COLUMNS)[1:]]


class _Labelled(NamedTuple):
    path: str
    fname: str
    label: str
    posteriors: FloatArray
    seconds: float


def write_labels(ledger: Ledger, labels: list[str], output: Path, scores: Path | None) -> Counter[str]:
    """Write the most probable label of each clip: `fname,label`; as Parquet also its posteriors and seconds.

    Args:
        scores: receives `fname` and all posteriors, as CSV.

    Returns:
        how many clips have each label.
    """
    counts: Counter[str] = Counter()
    if scores:
        rows = ((one.fname, *_digits(one.posteriors)) for one in _labelled(ledger, labels, Counter()))
        write_csv(scores, scores_header(labels), rows)
    clips = _labelled(ledger, labels, counts)
    if is_parquet(output):
        values = ((one.path, one.label, one.posteriors.max(), one.posteriors, one.seconds) for one in clips)
        write_parquet(output, _LABEL_COLUMNS, values)
    else:
        write_csv(output, label_header(output), ((one.fname, one.label) for one in clips))
    return counts


def write_detections(ledger: Ledger, labels: list[str], output: Path) -> Counter[str]:
    """Write a row for each detection: `fname,label,score,start_seconds,end_seconds`.

    Returns:
        how many detections have each label.
    """
    counts: Counter[str] = Counter()
    found = _detections(ledger, labels, counts)
    if is_parquet(output):
        write_parquet(output, _DETECTION_COLUMNS, ((path, *rest) for path, _, *rest in found))
    else:
        digits = (
            (fname, label, f"{score:.4f}", f"{start:.3f}", f"{end:.3f}") for _, fname, label, score, start, end in found
        )
        write_csv(output, detection_header(output), digits)
    return counts


def _labelled(ledger: Ledger, labels: list[str], counts: Counter[str]) -> Iterator[_Labelled]:
    """Finished clips, each added to the counts."""
    kind = labelled_type(len(labels))
    for path, fname, result in ledger.done():
        [(seconds, posteriors)] = np.frombuffer(result, kind)
        label = labels[int(np.argmax(posteriors))]
        counts[label] += 1
        yield _Labelled(path, fname, label, posteriors, float(seconds))


def _detections(
    ledger: Ledger, labels: list[str], counts: Counter[str]
) -> Iterator[tuple[str, str, str, float, float, float]]:
    """Path and fname of a recording, and label, score, start and end of a detection, which is added to the counts."""
    for path, fname, result in ledger.done():
        for label, score, start, end in np.frombuffer(result, DETECTIONS).tolist():
            counts[labels[label]] += 1
            yield path, fname, labels[label], score, start, end


def _digits(posteriors: FloatArray) -> list[str]:
    """Nine significant digits represent a float32 exactly, so the largest stays the largest."""
    return [f"{value:.9g}" for value in posteriors.tolist()]
