"""Offline: a folder of clips becomes a `fname,label` file, as Kaggle wants it.

The law of this file: the output appears whole or not at all. Finished clips are kept in a
journal beside it, so a rerun after an interruption or a full disk goes on where it stopped.
"""

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO, TypedDict

import numpy as np
from tqdm import tqdm

from kwsd.audio import FloatArray, fit_length, read_recording
from kwsd.card import ModelCard
from kwsd.errors import AudioError, OutputError
from kwsd.frontend import clip_features
from kwsd.model import Model

_BATCH_CLIPS = 256

_VIEWS = ((0.0, 1.0), (-0.06, 1.0), (0.06, 1.0), (0.0, 0.5), (0.0, 2.0))
"""Shift in seconds and gain. Only the first without `augment`."""

N_VIEWS = len(_VIEWS)


class _Encoding(TypedDict):
    encoding: str
    errors: str


_TEXT: _Encoding = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names may be any bytes


@dataclass
class Summary:
    """How many clips got which label, and which could not be read."""

    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[AudioError] = field(default_factory=list)


def label_folder(
    folder: Path, output: Path, model: Model, scores: Path | None = None, augment: bool = False
) -> Summary:
    """Label every WAV below a folder.

    Args:
        output: gets `fname,label`, sorted by fname.
        scores: gets `fname` and the posterior of each label.
        augment: average over small shifts and gains, at five times the work.

    Raises:
        AudioError: there is no WAV at all.
        OutputError: a file cannot be written; what is finished is kept for the next run.
    """
    summary = Summary()
    clips = find_clips(folder, summary.unreadable)
    for target in filter(None, (output, scores)):
        _check_target(target, clips)
    if scores and scores.absolute() == output.absolute():
        raise OutputError(f"{scores}: the scores cannot go into the same file as the labels")
    n_views = N_VIEWS if augment else 1
    journal = Journal(output.with_name(output.name + ".journal"), model, clips, n_views)
    with _saying_what_cannot_be_written(output):
        done = journal.resume()
        missing = {name: path for name, path in clips.items() if name not in done}
        _label_missing(missing, len(clips), model, n_views, journal, done, summary)
        rows = [(name, done[name]) for name in clips if name in done]
        labels = model.card.labels
        best = [(name, labels[int(np.argmax(np.array(posteriors, np.float32)))]) for name, posteriors in rows]
        if scores:
            _write_csv(scores, ("fname", *labels), ((name, *posteriors) for name, posteriors in rows))
        _write_csv(output, ("fname", "label"), best)
        journal.remove()
    summary.counts.update(label for _, label in best)
    return summary


def find_clips(folder: Path, unreadable: list[AudioError]) -> dict[str, Path]:
    """WAVs below a folder by the name that they have in the output, in its order.

    That is the file's name; where two clips below the folder share one, the path from the folder.

    Args:
        unreadable: gets an error for each folder that cannot be looked into.

    Raises:
        AudioError: there is none.
    """

    def closed(error: OSError) -> None:
        unreadable.append(AudioError(f"{error.filename}: {error.strerror}"))

    found = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=closed) for name in names)
    paths = [path for path in found if path.suffix.lower() == ".wav"]
    if not paths:
        raise AudioError(f"{folder}: {'no WAV files below it' if folder.is_dir() else 'no such folder'}")
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [path.relative_to(folder).as_posix() for path in paths]
    return dict(sorted(zip(names, paths, strict=True)))


class Journal:
    """Posteriors of finished clips on disk, valid for one model file and the same clips.

    The first line is a digest of the model, of the number of views and of the clips' paths,
    sizes and times; then CSV, a clip a line.
    """

    def __init__(self, path: Path, model: Model, clips: dict[str, Path], n_views: int) -> None:
        self._path = path
        digest = hashlib.sha256(model.path.read_bytes() + bytes([n_views]))
        for clip in clips.values():
            digest.update(os.fsencode(clip.absolute()) + _state(clip))
        self._header = f"kwsd journal {digest.hexdigest()}\n"
        self._n_labels = len(model.card.labels)

    def resume(self) -> dict[str, list[str]]:
        """What an earlier run finished with the same model and clips; begins anew with others."""
        rows: list[list[str]] = []
        if self._path.is_file():
            with self._path.open(newline="", **_TEXT) as file:
                header, text = file.readline(), file.read()
            if header == self._header:
                rows = list(csv.reader(io.StringIO(text, newline="")))
                rows = rows if text.endswith("\n") else rows[:-1]  # the last row was cut off
        rows = [row for row in rows if len(row) == self._n_labels + 1]
        with _appears_whole(self._path) as file:
            file.write(self._header)
            csv.writer(file, lineterminator="\n").writerows(rows)
        return {row[0]: row[1:] for row in rows}

    def add(self, names: list[str], posteriors: list[list[str]]) -> None:
        with self._path.open("a", newline="", **_TEXT) as file:
            csv.writer(file, lineterminator="\n").writerows(
                [name, *row] for name, row in zip(names, posteriors, strict=True)
            )

    def remove(self) -> None:
        self._path.unlink()


def _label_missing(
    missing: dict[str, Path],
    n_clips: int,
    model: Model,
    n_views: int,
    journal: Journal,
    done: dict[str, list[str]],
    summary: Summary,
) -> None:
    names = list(missing)
    with (
        tqdm(total=n_clips, initial=n_clips - len(names), desc="labelling", unit=" clips", disable=None) as bar,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for start in range(0, len(names), _BATCH_CLIPS):
            batch = names[start : start + _BATCH_CLIPS]
            windows = dict(
                zip(batch, pool.map(lambda name: _windows(missing[name], model.card, n_views), batch), strict=True)
            )
            readable = {name: window for name, window in windows.items() if not isinstance(window, AudioError)}
            summary.unreadable += [error for error in windows.values() if isinstance(error, AudioError)]
            if readable:
                of_views = model.posteriors(np.concatenate(list(readable.values())))
                mean = of_views.reshape(-1, n_views, of_views.shape[1]).mean(axis=1)
                posteriors = _digits(model.card.clip_posteriors(mean))
                journal.add(list(readable), posteriors)
                done.update(zip(readable, posteriors, strict=True))
            bar.update(len(batch))


def _windows(path: Path, card: ModelCard, n_views: int) -> FloatArray | AudioError:
    try:
        samples, rate_hz = read_recording(path)
    except AudioError as error:
        return error
    return views(samples, rate_hz, card, n_views)


def views(samples: FloatArray, rate_hz: int, card: ModelCard, n_views: int = N_VIEWS) -> FloatArray:
    """A clip as it is, then shifted and louder and softer: what `augment` averages over.

    Shape: (n_samples,) at `rate_hz` -> (n_views, window_frames, n_bands), float32.
    """
    second = round(card.window_samples / card.frontend.sample_rate_hz * rate_hz)
    if n_views > 1:  # room to shift a short clip into
        samples = fit_length(samples, max(len(samples), second))
    windows = [
        clip_features(gain * _shifted(samples, round(seconds * rate_hz)), rate_hz, card.window_frames, card.frontend)
        for seconds, gain in _VIEWS[:n_views]
    ]
    return np.stack(windows)


def _shifted(samples: FloatArray, n_samples: int) -> FloatArray:
    """Later by so many samples, or earlier if negative; what leaves is lost."""
    if n_samples >= 0:
        return np.pad(samples, (n_samples, 0))[: len(samples)]
    return np.pad(samples, (0, -n_samples))[-n_samples:]


def _digits(posteriors: FloatArray) -> list[list[str]]:
    """Nine significant digits carry a float32 exactly, so the largest stays the largest."""
    return [[f"{value:.9g}" for value in row] for row in posteriors.tolist()]


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> None:
    with _appears_whole(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


@contextmanager
def _appears_whole(path: Path) -> Iterator[TextIO]:
    """A file to write, which gets its name when all of it is written."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", newline="", **_TEXT) as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _state(clip: Path) -> bytes:
    """Changes when a clip does; a clip that cannot be looked at has none."""
    try:
        status = clip.stat()
    except OSError:
        return b""
    return f" {status.st_size} {status.st_mtime_ns}\n".encode()


def _check_target(target: Path, clips: dict[str, Path]) -> None:
    """Before hours of work: can this file be written, and is nothing else lost by it?"""
    if target.exists() and not target.is_file():
        raise OutputError(f"{target}: is not a file; name a file to write")
    if not target.name or not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{target}: cannot be written; its folder does not exist or does not let you")
    if any(target.absolute() == clip.absolute() for clip in clips.values()):
        raise OutputError(f"{target}: is one of the clips; name another file to write")


@contextmanager
def _saying_what_cannot_be_written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or output
        raise OutputError(
            f"{where}: cannot be written ({error.strerror}); the same command goes on from here"
        ) from None
