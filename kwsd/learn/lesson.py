"""A lesson: a word that was learnt, and how well, in figures and in plain words."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, chi2

from kwsd.learn.graft import Branch
from kwsd.learn.pack import NOISE, OTHER, SPEECH
from kwsd.learn.synthesis import ESPEAK_NG
from kwsd.learn.takes import Take

ENOUGH = 8
"""Takes with which a word is learnt well."""

_NAMED = 3  # words that resemble it, and recordings in a note
_SHORT_SECONDS = 0.35
_RESEMBLES = 0.8  # of the threshold
_FEW_RECOGNISED = 0.6
_MANY_VOICES = 20


@dataclass(frozen=True, slots=True)
class Lesson:
    """A word that was learnt, and how well.

    Attributes:
        n_real, n_synthetic: takes by people, and by a synthesiser, whose name is in `synthesiser`.
        n_recognised: takes that were recognised by a branch that was fitted without them, of `n_takes`.
        n_false: events in the pack's measuring half, which lasts `hours`.
        closest: words of the measuring half with the highest scores, and these scores.
        notes: what its user should know or mend.
    """

    word: str
    branch: Branch
    threshold: float
    n_real: int
    n_synthetic: int
    synthesiser: str
    n_recognised: int
    n_false: int
    hours: float
    closest: list[tuple[str, float]]
    notes: list[str]

    def lines(self) -> list[str]:
        """The report."""
        low, high = binomtest(self.n_recognised, self.n_takes).proportion_ci(method="exact")
        least, most = _poisson_interval(self.n_false, self.hours)
        lines = [
            f"{self.word}: learnt from {self._sources()}, {self.branch.n_parameters} parameters",
            f"  recognised when left out: {self.n_recognised} of {self.n_takes} ({low:.0%} to {high:.0%})",
            f"  false events: {self.n_false} in the {self.hours:.1f} h of speech, words and noise for which the "
            f"threshold was chosen ({least:.1f} to {most:.1f} an hour)",
            f"  threshold: {self.threshold:.4f}",
        ]
        if self.closest:
            closest = ", ".join(f"{name} {score:.2f}" for name, score in self.closest)
            lines.append(f"  closest words and their highest scores: {closest}")
        return [*lines, *(f"  note: {note}" for note in self.notes)]

    @property
    def n_takes(self) -> int:
        """The takes that the figures are about: those by people, if there are any."""
        return self.n_real or self.n_synthetic

    def _sources(self) -> str:
        real = f"{self.n_real} recordings" if self.n_real else ""
        spoken = f"{self.n_synthetic} takes by {self.synthesiser}" if self.n_synthetic else ""
        return " and ".join(filter(None, (real, spoken)))

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return {
            "recordings": self.n_real,
            "synthetic": {"takes": self.n_synthetic, "by": self.synthesiser},
            "recognised_when_left_out": self.n_recognised,
            "false_events": self.n_false,
            "measured_hours": round(self.hours, 3),
            "closest": dict(self.closest),
            "parameters": self.branch.n_parameters,
        }


def closest_words(events: list[tuple[float, str]]) -> list[tuple[str, float]]:
    """The words that resemble it most."""
    highest: dict[str, float] = {}
    for score, name in events:
        if name not in (SPEECH, NOISE, OTHER):
            highest.setdefault(name, round(score, 3))
    return list(highest.items())[:_NAMED]


def notes_on(lesson: Lesson, takes: list[Take], per_hour: float) -> list[str]:
    """What could be better."""
    found = []
    found += _notes_on_synthesiser(lesson, takes)
    if lesson.n_takes < ENOUGH:
        found.append(
            f"only {lesson.n_takes} recordings; {ENOUGH} or more, by everyone who will say it, are missed less often"
        )
    if lesson.n_recognised < _FEW_RECOGNISED * lesson.n_takes:
        found.append("the recordings are too few, or too different from each other: record more in the same places")
    if lesson.hours * per_hour < 1:
        found.append(
            f"{lesson.hours:.1f} h are too short to show {per_hour:g} false events an hour; "
            "`kwsd calibrate` with hours of recordings of your room can"
        )
    if lesson.n_false > int(per_hour * lesson.hours):
        found.append(f"even at the highest threshold it fires {lesson.n_false} times in {lesson.hours:.1f} h")
    for note in dict.fromkeys(take.note for take in takes if take.note):
        names = [str(take.path) for take in takes if take.note == note]
        found.append(f"{note}: {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}")
    if np.median([take.seconds for take in takes]) < _SHORT_SECONDS:
        found.append("the word is short, so other words often contain it; two or three syllables work better")
    if lesson.closest and lesson.closest[0][1] > _RESEMBLES * lesson.threshold:
        found.append(f"it resembles {lesson.closest[0][0]}")
    return found


def _notes_on_synthesiser(lesson: Lesson, takes: list[Take]) -> list[str]:
    found = []
    if lesson.n_synthetic and not lesson.n_real:
        found.append(f"spoken by {lesson.synthesiser} alone, it misses many real voices; add recordings, if only three")
    if lesson.synthesiser == ESPEAK_NG:
        found.append("espeak-ng sounds like a machine; kokoro-onnx and piper sound more like people (docs/learning.md)")
    n_voices = len({take.path for take in takes if take.is_synthetic})
    if 0 < n_voices < _MANY_VOICES:
        found.append(f"{lesson.synthesiser} has only {n_voices} voices here; others will be missed more often")
    return found


def _poisson_interval(n: int, hours: float) -> tuple[float, float]:
    """95 % interval of a rate after `n` events (F. Garwood, 1936)."""
    low = chi2.ppf(0.025, 2 * n) / 2 if n else 0.0
    return float(low / hours), float(chi2.ppf(0.975, 2 * n + 2) / 2 / hours)
