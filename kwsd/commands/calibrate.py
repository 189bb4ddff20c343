"""`kwsd calibrate`: thresholds for a budget of false accepts, from recordings of the user's room.

Law: the recordings hold no keyword, so every detection in them is a false accept. The model's
thresholds keep their proportions: all move by the same step on the logit scale, because an hour or
two of recordings can determine one number but not ten.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from kwsd.core.model import Model
from kwsd.core.spotter import Spotter
from kwsd.core.sweep import GRID, Sweep, nearest
from kwsd.errors import ConfigError
from kwsd.sources.wav import WavFile

_ENOUGH = 10  # events that can be counted as a rate; with fewer, the rate is extrapolated
_TAIL = 40
_MOST_PER_HOUR = 10_000
_SHOWS_NONE = 3.0  # 3 / r hours without an event show at 95 % that the rate is at most r
_DEAF = 0.8  # share of missed keywords beyond which a threshold is useless

Basis = Literal["counted", "extrapolated", "kept"]
"""Where the thresholds come from: counted events; how the few events thin out; or the model's own."""

_BASES = {
    "counted": "counted",
    "extrapolated": "extrapolated from how the false accepts thin out",
    "kept": "the model's own, since these recordings give no reason for others",
}


@dataclass(frozen=True, slots=True)
class Keyword:
    """A keyword with its threshold.

    Attributes:
        n_false: number of false accepts in the recordings at this threshold.
        missed: share of utterances that the threshold misses in the validation stream of the
            model's card; None if the card does not say.
    """

    label: str
    threshold: float
    n_false: int
    missed: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds for a budget, and what they are based on.

    Attributes:
        keywords: in the model's order.
        per_hour: the budget.
        hours: of recordings.
        basis: where the thresholds come from.
    """

    keywords: list[Keyword]
    per_hour: float
    hours: float
    basis: Basis

    @property
    def thresholds(self) -> dict[str, float]:
        return {one.label: one.threshold for one in self.keywords}

    @property
    def needed_hours(self) -> float:
        """Hours of recordings that can show the budget at 95 %."""
        return _SHOWS_NONE / self.per_hour


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
    counts = np.zeros((len(GRID), len(card.labels)), np.int64)
    seconds = 0.0
    for path in {path.resolve(): path for path in paths}.values():
        sweep = Sweep(card)
        for chunk_seconds in _sweep_file(path, model, sweep):
            on_progress(chunk_seconds)
        counts += sweep.counts()
        seconds += sweep.n_windows * card.stride_seconds
    indices = [card.labels.index(label) for label in card.keywords]
    own = np.array([nearest(card.decision.thresholds[label]) for label in card.keywords])
    steps, n_false = _by_step(counts[:, indices], own)
    step, basis = _choose(steps, n_false, per_hour, seconds / 3600)
    chosen = np.clip(own + step, 0, len(GRID) - 1)
    missed = card.results.get("missed", {})
    keywords = [
        Keyword(
            label, round(float(GRID[at]), 7), int(counts[at, index]), missed[label][at] if label in missed else None
        )
        for label, at, index in zip(card.keywords, chosen, indices, strict=True)
    ]
    return Calibration(keywords, per_hour, hours=seconds / 3600, basis=basis)


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


def _by_step(counts: NDArray[np.int64], own: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """False accepts of all keywords when all thresholds move by the same number of steps on the grid.

    Shape: counts (n_grid, n_keywords), own (n_keywords,) -> steps and false accepts, both (n_steps,).
    """
    steps = np.arange(-int(own.min()), len(GRID) - int(own.min()))
    at = np.clip(own + steps[:, None], 0, len(GRID) - 1)
    n_false = counts[at, np.arange(len(own))].sum(axis=1)
    # A higher threshold can count one more, when a long event falls apart; a rate must not rise.
    return steps, np.maximum.accumulate(n_false[::-1])[::-1]


def _choose(steps: NDArray[np.int64], n_false: NDArray[np.int64], per_hour: float, hours: float) -> tuple[int, Basis]:
    """The step by which all thresholds move.

    If the budget allows enough events to count, it is the first step within the budget. Otherwise
    the rate is extrapolated: high scores thin out exponentially on the logit scale, so a rate of few
    events keeps falling by the same factor for each step (peaks over threshold, J. Pickands, 1975).
    Thresholds are lowered only where more events than the budget were counted just below, because
    recordings without speech say nothing about a room in which someone speaks.
    """
    budget = per_hour * hours
    if budget >= _ENOUGH and n_false[0] > budget:
        above = np.flatnonzero(n_false <= budget)
        return int(steps[above[0] if len(above) else -1]), "counted"
    if n_false[-1] > _TAIL:
        return int(steps[-1]), "counted"
    few = int(np.argmax(n_false <= _TAIL))
    if n_false[few] == 0:  # no events at all, or none above the counted ones
        return (int(steps[few]), "counted") if steps[few] > 0 else (0, "kept")
    mean_excess = n_false[few + 1 :].sum() / n_false[few]  # in whole steps, so geometric
    excess = np.log(max(1.0, n_false[few] / budget)) / np.log1p(1 / max(mean_excess, 0.1))
    step = int(steps[few] + np.ceil(excess))
    return (step, "extrapolated") if step > 0 else (0, "kept")


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
    known = [one.missed for one in calibration.keywords if one.missed is not None]
    if known and sum(known) / len(known) > _DEAF:
        yield "with these thresholds most keywords are missed: allow more false accepts an hour, or record more"
