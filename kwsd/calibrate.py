"""`kwsd calibrate`: thresholds for a budget of false accepts, from the user's own room.

The law of this file: the recordings hold no keyword, so whatever fires in them is a false
accept. The model's thresholds keep their proportions: all are moved by one step on the
logit scale, because an hour or two can tell one number and not ten.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from kwsd.errors import ConfigError
from kwsd.model import Model
from kwsd.sources.wav import WavFile
from kwsd.spotter import Spotter
from kwsd.sweep import GRID, Sweep, nearest

_ENOUGH = 10  # events that count as a rate; with fewer, the rate is read off the slope
_TAIL = 40
_SHOWS_NONE = 3.0  # no event in so many times the mean time between events shows that it is no shorter, at 95 %
_DEAF = 0.8  # of what is said missed, on validation streams: of no use to anybody


Basis = Literal["counted", "extrapolated", "kept"]
"""The false accepts that there are; or, of few, how fast they thin out; or, of none, the model's own."""


@dataclass(frozen=True, slots=True)
class Keyword:
    """What a keyword costs.

    Attributes:
        n_false: how often its threshold was reached in the recordings.
        missed: share of its utterances that the threshold misses in the validation stream
            of the model's card, or None if the card does not say.
    """

    label: str
    threshold: float
    n_false: int
    missed: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds for a budget, and how far they can be trusted.

    Attributes:
        keywords: in the model's order.
        per_hour: the budget; hours: of recordings.
        basis: where the thresholds come from.
    """

    keywords: list[Keyword]
    per_hour: float
    hours: float
    basis: "Basis"

    @property
    def thresholds(self) -> dict[str, float]:
        return {one.label: one.threshold for one in self.keywords}

    @property
    def needed_hours(self) -> float:
        """Hours that can show the budget: none in 3 / r hours supports less than r, at 95 %."""
        return _SHOWS_NONE / self.per_hour


def calibrate(
    paths: list[Path], model: Model, per_hour: float, on_progress: Callable[[float], object] = lambda seconds: None
) -> Calibration:
    """Hear recordings without keywords and choose thresholds.

    Args:
        paths: recordings, any rate. Of each the time counts in which something was decided: not what comes before
            the end of the first window. One that is named twice counts once.
        per_hour: false accepts of all keywords together that may happen in an hour.
        on_progress: called with the seconds that were heard since the last call.

    Raises:
        AudioError: a recording cannot be read, or only in part.
        ConfigError: a budget that is none.
    """
    if not 0 < per_hour < 1e4:
        raise ConfigError(f"--false-accepts-per-hour {per_hour:g}: must be positive, such as 0.5")
    counts = np.zeros((len(GRID), len(model.card.labels)), np.int64)
    card = model.card
    seconds = 0.0
    for path in {path.resolve(): path for path in paths}.values():
        sweep = Sweep(card)
        _hear(path, model, sweep, on_progress)
        counts += sweep.counts()
        seconds += sweep.n_windows * card.stride_seconds
    keywords = [card.labels.index(label) for label in card.keywords]
    own = np.array([nearest(card.decision.thresholds[label]) for label in card.keywords])
    steps, n_false = _by_step(counts[:, keywords], own)
    step, basis = _choose(steps, n_false, per_hour, seconds / 3600)
    chosen = np.clip(own + step, 0, len(GRID) - 1)
    missed = card.results.get("missed", {})
    return Calibration(
        [
            Keyword(label, round(float(GRID[at]), 7), int(counts[at, index]), _missed(missed, label, at))
            for label, at, index in zip(card.keywords, chosen, keywords, strict=True)
        ],
        per_hour,
        hours=seconds / 3600,
        basis=basis,
    )


def refuse_existing(path: Path) -> None:
    """Before an hour of work: raises ConfigError if the file is there already, or cannot be written."""
    if path.exists() or path.is_symlink():
        raise ConfigError(f"{path}: is there already; name a new file{'' if path.is_dir() else ', or remove it first'}")
    if not os.access(path.absolute().parent, os.W_OK | os.X_OK):
        raise ConfigError(f"{path}: cannot be written; its folder does not exist or does not let you")


def save_thresholds(thresholds: dict[str, float], model: Path | None, path: Path) -> None:
    """Write a configuration file with the thresholds, and the model unless it is the bundled one.

    Raises:
        ConfigError: the file is there already, or cannot be written.
    """
    own_model = {"model": str(model.absolute())} if model else {}
    text = yaml.safe_dump({**own_model, "thresholds": thresholds}, sort_keys=False)
    try:
        with path.open("x") as file:
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


def _hear(path: Path, model: Model, sweep: Sweep, on_progress: Callable[[float], object]) -> None:
    rate_hz, chunks = WavFile(path, paced=False).open()
    spotter = Spotter(model, rate_hz, on_posteriors=sweep.push)
    for chunk in chunks:
        spotter.push(chunk.samples)
        on_progress(len(chunk.samples) / rate_hz)


def _by_step(counts: NDArray[np.int64], own: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """False accepts of all keywords when all thresholds are moved by so many steps of the grid.

    Shape: counts (n_grid, n_keywords), own (n_keywords,) -> steps and false accepts, (n_steps,), which never rise.
    """
    steps = np.arange(-int(own.min()), len(GRID) - int(own.min()))
    at = np.clip(own + steps[:, None], 0, len(GRID) - 1)
    n_false = counts[at, np.arange(len(own))].sum(axis=1)
    # A higher threshold can count one more: a long event falls apart. A rate does not rise.
    return steps, np.maximum.accumulate(n_false[::-1])[::-1]


def _choose(steps: NDArray[np.int64], n_false: NDArray[np.int64], per_hour: float, hours: float) -> tuple[int, Basis]:
    """By how much to move the thresholds.

    Where the budget is events enough to be counted, the first step within it. Else high scores
    thin out exponentially on the logit scale, so the rate of few events goes on falling by the
    same factor a step (peaks over threshold, J. Pickands, 1975). Thresholds are lowered only
    where more events than the budget were counted right below: a room in which nothing was
    said tells nothing about one in which somebody speaks.
    """
    budget = per_hour * hours
    if budget >= _ENOUGH and n_false[0] > budget:
        above = np.flatnonzero(n_false <= budget)
        return int(steps[above[0] if len(above) else -1]), "counted"
    if n_false[-1] > _TAIL:
        return int(steps[-1]), "counted"
    few = int(np.argmax(n_false <= _TAIL))
    if n_false[few] == 0:  # nothing at all, or nothing above what was counted
        return (int(steps[few]), "counted") if steps[few] > 0 else (0, "kept")
    mean_excess = n_false[few + 1 :].sum() / n_false[few]  # in whole steps, so geometric
    excess = np.log(max(1.0, n_false[few] / budget)) / np.log1p(1 / max(mean_excess, 0.1))
    step = int(steps[few] + np.ceil(excess))
    return (step, "extrapolated") if step > 0 else (0, "kept")


def _missed(missed: dict[str, list[float]], label: str, at: int) -> float | None:
    """From the card's validation stream: the share that is missed at a threshold of the grid."""
    return missed[label][at] if label in missed else None


def describe(calibration: Calibration) -> Iterable[str]:
    """The lines that `kwsd calibrate` prints."""
    yield f"{'keyword':>10}  threshold  false accepts here  missed in validation"
    for one in calibration.keywords:
        missed = "not known" if one.missed is None else f"{one.missed:.1%}"
        yield f"{one.label:>10}  {one.threshold:9.5f}  {one.n_false:18d}  {missed:>20}"
    n_false = sum(one.n_false for one in calibration.keywords)
    yield (
        f"{n_false} false accepts in {calibration.hours:.2f} hours; "
        f"asked for are at most {calibration.per_hour:g} an hour"
    )
    highest = min(calibration.thresholds.values()) >= GRID[-1] - 1e-4
    if n_false > calibration.per_hour * calibration.hours and highest:
        yield "even the highest thresholds fire more often than that: is a keyword said in these recordings?"
    elif calibration.hours < calibration.needed_hours:
        yield (
            f"too little audio to show {calibration.per_hour:g} an hour: that takes {calibration.needed_hours:.1f} "
            f"hours. The thresholds are {_BASES[calibration.basis]}; record more and repeat"
        )
    elif calibration.basis != "counted":
        yield f"few false accepts fit this budget: the thresholds are {_BASES[calibration.basis]}"
    known = [one.missed for one in calibration.keywords if one.missed is not None]
    if known and sum(known) / len(known) > _DEAF:
        yield "with these thresholds hardly anything is heard: ask for more false accepts an hour, or record more"


_BASES = {
    "counted": "counted",
    "extrapolated": "extrapolated from how the false accepts thin out",
    "kept": "the model's own, since these recordings give no reason for others",
}
