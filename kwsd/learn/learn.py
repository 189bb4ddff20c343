"""Learning a word, read from top to bottom: takes, examples, branch, figures, threshold; then the new model file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest, chi2

from kwsd.audio import FloatArray
from kwsd.core.card import METADATA_KEY, ModelCard, golden_windows
from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.core.runtime import CPU, open_session
from kwsd.errors import LearnError
from kwsd.files import whole
from kwsd.learn.branch import fit_branch, scores_of
from kwsd.learn.examples import beginnings, positives, unchanged
from kwsd.learn.graft import N_SPANS, SPAN_STEPS, Branch, Graphs
from kwsd.learn.pack import NOISE, SPEECH, load_pack
from kwsd.learn.takes import Take
from kwsd.learn.trunk import Trunk

FEWEST, MOST = 3, 50
"""Takes of a word: fewer teach nothing, and more take longer than a minute."""

_ENOUGH = 8
_MOST_FOLDS = 10
_LOWEST, _HIGHEST = 0.5, 0.9999  # thresholds
_NAMED = 3  # words that resemble it
_SHORT_SECONDS = 0.35
_RESEMBLES = 0.8  # of the threshold
_FEW_RECOGNISED = 0.6


@dataclass(frozen=True, slots=True)
class Lesson:
    """A word that was learnt, and how well.

    Attributes:
        n_recognised: takes that were recognised when each was left out in turn, of `n_takes`.
        n_false: events in the pack's measuring half, which lasts `hours`.
        closest: words of the measuring half with the highest scores, and these scores.
        warnings: what its user should know or mend.
    """

    word: str
    branch: Branch
    threshold: float
    n_takes: int
    n_recognised: int
    n_false: int
    hours: float
    closest: list[tuple[str, float]]
    warnings: list[str]

    def lines(self) -> list[str]:
        """The report."""
        low, high = binomtest(self.n_recognised, self.n_takes).proportion_ci(method="exact")
        least, most = _poisson_interval(self.n_false, self.hours)
        closest = ", ".join(f"{name} {score:.2f}" for name, score in self.closest)
        return [
            f"{self.word}: learnt from {self.n_takes} recordings, {self.branch.n_parameters} parameters",
            f"  recognised when left out: {self.n_recognised} of {self.n_takes} ({low:.0%} to {high:.0%})",
            f"  false events: {self.n_false} in {self.hours:.1f} h of speech, words and noise "
            f"({least:.1f} to {most:.1f} an hour)",
            f"  threshold: {self.threshold:.4f}",
            f"  closest words and their highest scores: {closest}",
            *(f"  note: {warning}" for warning in self.warnings),
        ]

    def to_dict(self) -> dict[str, Any]:
        """For the model card."""
        return {
            "recordings": self.n_takes,
            "recognised_when_left_out": self.n_recognised,
            "false_events": self.n_false,
            "measured_hours": round(self.hours, 3),
            "closest": dict(self.closest),
            "parameters": self.branch.n_parameters,
        }


class Teacher:
    """Learns words for one model.

    Args:
        path: of the model; None for the bundled one.
        pack: None for the one beside the bundled model.

    Raises:
        ModelError, LearnError: the model or the pack cannot be used.
    """

    def __init__(self, path: Path | None, pack: Path) -> None:
        self.path = path or DEFAULT_MODEL
        self.card = load_model(self.path, "cpu").card  # it has passed its golden check
        self.graphs = Graphs(self.path)
        self.trunk = Trunk(self.graphs, self.card, self.path)
        self._pack = load_pack(pack, self.trunk)
        self._windows = [self._pack.windows(half) for half in (self._pack.training, self._pack.measuring)]
        span_seconds = SPAN_STEPS * 2 * self.card.frontend.hop_samples / self.card.frontend.sample_rate_hz
        decision = self.card.decision
        self._n_smoothed = max(1, round(decision.smoothing_windows * self.card.stride_seconds / span_seconds))
        self._n_refractory = max(1, round(decision.refractory_seconds / span_seconds))

    def learn(
        self, word: str, takes: list[Take], per_hour: float, on_progress: Callable[[int], object] = lambda n: None
    ) -> Lesson:
        """Learn a word from takes. `on_progress` is called with 1 after each of `n_parts(takes)` parts.

        Raises:
            LearnError: too few or too many takes, or a name that cannot be used.
        """
        refuse_word(word, len(takes))
        self._refuse(word)
        random = np.random.default_rng(len(takes))
        examples = []
        for take in takes:
            examples.append([make(take, self.trunk, random) for make in (positives, beginnings, unchanged)])
            on_progress(1)
        n_recognised = 0
        for fold in np.array_split(random.permutation(len(takes)), min(len(takes), _MOST_FOLDS)):
            branch = self._fit([one for n, one in enumerate(examples) if n not in fold], random, rounds=2)
            threshold = self.threshold(branch, per_hour)
            n_recognised += sum(self.highest(branch, examples[n][2]) >= threshold for n in fold)
            on_progress(1)
        branch = self._fit(examples, random)
        threshold = self.threshold(branch, per_hour)
        events = self._events(branch)
        on_progress(1)
        lesson = Lesson(
            word,
            branch,
            threshold,
            len(takes),
            n_recognised,
            sum(score >= threshold for score, _ in events),
            self._pack.hours(self._pack.measuring, self.trunk),
            _closest(events),
            [],
        )
        return replace(lesson, warnings=_warnings(lesson, takes))

    @staticmethod
    def n_parts(takes: list[Take]) -> int:
        """Parts of the work, for a progress bar."""
        return len(takes) + min(len(takes), _MOST_FOLDS) + 1

    def add(self, lesson: Lesson) -> None:
        """Graft a lesson's branch."""
        self.graphs.add(lesson.word, lesson.branch)
        decision = self.card.decision
        thresholds = {**decision.thresholds, lesson.word: round(lesson.threshold, 6)}
        learnt = {**self.card.training.get("learnt", {}), lesson.word: lesson.to_dict()}
        self.card = replace(
            self.card,
            labels=[*self.card.labels, lesson.word],
            decision=replace(decision, thresholds=thresholds),
            training={**self.card.training, "learnt": learnt},
        )

    def keep_only_learnt(self) -> None:
        """Leave out the model's own keywords."""
        self.card = without_own(self.graphs, self.card)

    def save(self, path: Path) -> None:
        """Write the model file, after its golden check."""
        save_model(self.graphs, self.card, path)

    def _refuse(self, word: str) -> None:
        if word in self.card.labels:
            advice = f"`kwsd learn --forget {word}` removes it" if word in learnt_words(self.card) else "take another"
            raise LearnError(f"{word}: the model has this label already; {advice}")

    def _fit(self, examples: list[list[FloatArray]], random: np.random.Generator, **options: int) -> Branch:
        said, begun = (np.concatenate([one[n] for one in examples]) for n in (0, 1))
        return fit_branch(said, self._windows[0], begun, random, **options)

    def _scores(self, branch: Branch, windows: FloatArray) -> FloatArray:
        """Smoothed scores, as the daemon's decision has them."""
        posteriors = 1 / (1 + np.exp(-np.clip(scores_of(branch, windows), -30, 30)))
        mean = np.full(self._n_smoothed, 1 / self._n_smoothed)
        return np.convolve(posteriors, mean, "valid").astype(np.float32)

    def highest(self, branch: Branch, windows: FloatArray) -> float:
        """The highest smoothed score in windows that follow each other."""
        return float(self._scores(branch, windows).max())

    def _events(self, branch: Branch) -> list[tuple[float, str]]:
        """Every local maximum in the measuring half, the highest first, and what was said."""
        scores = self._scores(branch, self._windows[1])
        kinds = self._pack.measuring.kinds[N_SPANS - 1 + self._n_smoothed - 1 :]
        events, is_free = [], np.ones(len(scores), bool)
        for at in np.argsort(-scores):
            if scores[at] < _LOWEST / 2:
                break
            if is_free[at]:
                events.append((float(scores[at]), self._pack.names[kinds[at]]))
                is_free[max(0, at - self._n_refractory) : at + self._n_refractory] = False
        return events

    def threshold(self, branch: Branch, per_hour: float) -> float:
        """The lowest threshold within the budget, on the pack's measuring half."""
        allowed = int(per_hour * self._pack.hours(self._pack.measuring, self.trunk))
        scores = [score for score, _ in self._events(branch)]
        first_refused = scores[allowed] if len(scores) > allowed else 0.0
        return float(np.clip(first_refused + 1e-4, _LOWEST, _HIGHEST))


def refuse_word(word: str, n_takes: int) -> None:
    """Check what needs no model.

    Raises:
        LearnError: a name that cannot be used, or too few or too many takes.
    """
    if not word.isprintable() or not word.strip() or "/" in word:
        raise LearnError(f"{word!r}: no name for a word; take letters")
    if not FEWEST <= n_takes <= MOST:
        raise LearnError(f"{word}: {n_takes} recordings; it takes {FEWEST} to {MOST}, better {_ENOUGH} or more")


def learnt_words(card: ModelCard) -> dict[str, Any]:
    """What the card says about each learnt word."""
    learnt: dict[str, Any] = card.training.get("learnt", {})
    return learnt


def forget(path: Path, words: list[str], output: Path) -> None:
    """Write a model file without some learnt words.

    Raises:
        LearnError: the model has not learnt one of them.
    """
    card, graphs = load_model(path, "cpu").card, Graphs(path)
    for word in words:
        if word not in learnt_words(card):
            known = ", ".join(learnt_words(card)) or "none"
            raise LearnError(f"{word}: not a learnt word of {path}; there are: {known}")
        graphs.remove(word)
        card = _without(card, [word])
    save_model(graphs, card, output)


def without_own(graphs: Graphs, card: ModelCard) -> ModelCard:
    """Leave out the keywords that were not learnt; returns the new card."""
    own = [label for label in card.labels if label not in learnt_words(card)]
    graphs.keep_only(len(own), own.index(card.silence), own.index(card.unknown))
    card = _without(card, [label for label in own if label not in (card.silence, card.unknown)])
    labels = [card.silence, card.unknown, *learnt_words(card)]
    return replace(card, labels=labels)


def save_model(graphs: Graphs, card: ModelCard, path: Path) -> None:
    """Write a model file with golden posteriors of its own graph, and load it once before it gets its name."""
    session = open_session(graphs.finished(card.to_json(), METADATA_KEY).SerializeToString(), path, CPU)
    windows = golden_windows(card.golden.seed, len(card.golden.posteriors), card.window_frames, card.frontend)
    [posteriors] = session.run(None, {session.get_inputs()[0].name: windows})
    card = replace(card, golden=replace(card.golden, posteriors=posteriors.astype(float).tolist()))
    with whole(path) as part:
        part.write_bytes(graphs.finished(card.to_json(), METADATA_KEY).SerializeToString())
        load_model(part, "cpu")


def _without(card: ModelCard, words: list[str]) -> ModelCard:
    """The card without some labels."""
    thresholds = {label: value for label, value in card.decision.thresholds.items() if label not in words}
    learnt = {label: value for label, value in learnt_words(card).items() if label not in words}
    training = {key: value for key, value in card.training.items() if key != "learnt"}
    return replace(
        card,
        labels=[label for label in card.labels if label not in words],
        decision=replace(card.decision, thresholds=thresholds),
        training={**training, "learnt": learnt} if learnt else training,
    )


def _closest(events: list[tuple[float, str]]) -> list[tuple[str, float]]:
    """The words that resemble it most."""
    highest: dict[str, float] = {}
    for score, name in events:
        if name not in (SPEECH, NOISE):
            highest.setdefault(name, round(score, 3))
    return list(highest.items())[:_NAMED]


def _warnings(lesson: Lesson, takes: list[Take]) -> list[str]:
    found = []
    if lesson.n_takes < _ENOUGH:
        found.append(
            f"only {lesson.n_takes} recordings; with {_ENOUGH} or more, by all who will say it, it misses less"
        )
    if lesson.n_recognised < _FEW_RECOGNISED * lesson.n_takes:
        found.append("the recordings are too few, or too different from each other: record more in the same places")
    for note in dict.fromkeys(take.note for take in takes if take.note):
        names = [str(take.path) for take in takes if take.note == note]
        found.append(f"{note}: {', '.join(names[:_NAMED])}{' …' if len(names) > _NAMED else ''}")
    if np.median([take.seconds for take in takes]) < _SHORT_SECONDS:
        found.append("the word is short, so other words often contain it; two or three syllables work better")
    if lesson.closest and lesson.closest[0][1] > _RESEMBLES * lesson.threshold:
        found.append(f"it resembles {lesson.closest[0][0]}")
    return found


def _poisson_interval(n: int, hours: float) -> tuple[float, float]:
    """95 % interval of a rate after `n` events (F. Garwood, 1936)."""
    low = chi2.ppf(0.025, 2 * n) / 2 if n else 0.0
    return float(low / hours), float(chi2.ppf(0.975, 2 * n + 2) / 2 / hours)
