"""`kwsd calibrate`: thresholds for a budget of false accepts, from recordings of the user's room."""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import yaml

from kwsd.core.calibration import Calibration, choose_thresholds
from kwsd.core.model import Model
from kwsd.core.spotter import Spotter
from kwsd.core.sweep import GRID, Sweep, nearest
from kwsd.errors import ConfigError
from kwsd.marks import Marked
from kwsd.sources.wav import WavFile

_MOST_PER_HOUR = 10_000
_DEAF = 0.8  # share of missed keywords beyond which a threshold is useless

_BASES = {
    "counted": "counted",
    "extrapolated": "extrapolated from how the false accepts thin out",
    "kept": "the model's own, since these recordings give no reason for others",
}


def calibrate(
    paths: list[Path], model: Model, per_hour: float, on_progress: Callable[[float], object] = lambda seconds: None
) -> Calibration:
    """Process recordings without keywords and choose thresholds.

    Args:
        paths: recordings, any rate. Only the time with decisions counts, so not the time before the
            end of the first window. A recording that is named twice counts once.
        per_hour: allowed false accepts an hour, all keywords together.
        on_progress: called with the seconds of audio since the last call.

    Raises:
        AudioError: a recording cannot be read, or only in part.
        ConfigError: the budget is out of range.
    """
    refuse_budget(per_hour)
    card = model.card
    counts, seconds = np.zeros((len(GRID), len(card.labels)), np.int64), 0.0
    for path in {path.resolve(): path for path in paths}.values():
        sweep = Sweep(card)
        for chunk_seconds in _sweep_file(path, model, sweep):
            on_progress(chunk_seconds)
        counts += sweep.counts
        seconds += sweep.n_windows * card.stride_seconds
    return choose_thresholds(card, counts, seconds / 3600, per_hour)


def refuse_budget(per_hour: float) -> None:
    """Check a budget of false accepts an hour.

    Raises:
        ConfigError: it is out of range.
    """
    if not 0 < per_hour < _MOST_PER_HOUR:
        raise ConfigError(f"--false-accepts-per-hour {per_hour:g}: must be above 0 and below {_MOST_PER_HOUR}")


def refuse_existing(path: Path) -> None:
    """Check an output file before an hour of work.

    Raises:
        ConfigError: the file exists already, or cannot be written.
    """
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path}: already exists; name a new file{'' if path.is_dir() else ', or remove it first'}")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: cannot be written; its folder does not exist or is not writable")


def save_thresholds(thresholds: dict[str, float], model: Path | None, path: Path) -> None:
    """Write a configuration file with the thresholds, and the model unless it is the bundled one.

    Raises:
        ConfigError: the file exists already, or cannot be written.
    """
    own_model = {"model": str(model.absolute())} if model else {}
    text = yaml.safe_dump({**own_model, "thresholds": thresholds}, sort_keys=False)
    try:
        with path.open("x", encoding="utf-8") as file:
            try:
                file.write(text)
                file.flush()
            except OSError:
                path.unlink()
                raise
    except FileExistsError:
        refuse_existing(path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def _sweep_file(path: Path, model: Model, sweep: Sweep) -> Iterator[float]:
    """Feed a recording to the sweep; yields the seconds of each chunk."""
    rate_hz, chunks = WavFile(path, paced=False).open()
    spotter = Spotter(model, rate_hz)
    for chunk in chunks:
        sweep.push(spotter.process(chunk.samples))
        yield len(chunk.samples) / rate_hz


def check_marks(clips: list[Marked], model: Model, thresholds: dict[str, float]) -> Iterator[str]:
    """What thresholds would do with marked clips: a line for each keyword that has some.

    Raises:
        AudioError: a clip cannot be read.
    """
    card = model.card
    right: dict[str, list[bool]] = {label: [] for label in card.keywords}  # whether it fires where it was said
    wrong: dict[str, list[bool]] = {label: [] for label in card.keywords}  # and where it fired, and was not said
    for clip in clips:
        sweep = Sweep(card)
        for _ in _sweep_file(clip.path, model, sweep):
            pass
        counts = sweep.counts
        for label in {clip.label, clip.said} & set(card.keywords):
            fires = bool(counts[nearest(thresholds[label]), card.labels.index(label)])
            (right if clip.said == label else wrong)[label].append(fires)
    for label in card.keywords:
        if right[label] or wrong[label]:
            heard = f"fires in {sum(right[label])} of {len(right[label])} marked clips of it"
            yield f"{label:>10}  {heard}, and in {sum(wrong[label])} of {len(wrong[label])} that it must not fire in"


def describe(calibration: Calibration) -> Iterable[str]:
    """The lines that `kwsd calibrate` prints."""
    yield f"{'keyword':>10}  threshold  false accepts here  missed in validation"
    for one in calibration.keywords:
        missed = "not known" if one.missed is None else f"{one.missed:.1%}"
        yield f"{one.label:>10}  {one.threshold:9.5f}  {one.n_false:18d}  {missed:>20}"
    n_false = sum(one.n_false for one in calibration.keywords)
    yield f"{n_false} false accepts in {calibration.hours:.2f} hours; the budget is {calibration.per_hour:g} an hour"
    highest = min(calibration.thresholds.values()) >= GRID[-1] - 1e-4
    if n_false > calibration.per_hour * calibration.hours and highest:
        yield "even the highest thresholds exceed the budget: is a keyword said in these recordings?"
    elif calibration.hours < calibration.needed_hours:
        yield (
            f"too little audio to show {calibration.per_hour:g} an hour: that takes {calibration.needed_hours:.1f} "
            f"hours. The thresholds are {_BASES[calibration.basis]}; record more and repeat"
        )
    elif calibration.basis != "counted":
        yield f"few false accepts fit this budget: the thresholds are {_BASES[calibration.basis]}"
    if calibration.missed is not None and calibration.missed > _DEAF:
        yield "with these thresholds most keywords are missed: allow more false accepts an hour, or record more"
