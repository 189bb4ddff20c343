"""Learning a word, read from top to bottom: takes, examples, branch, figures, threshold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.errors import LearnError
from kwsd.learn.branch import fit_branch, scores_of
from kwsd.learn.examples import beginnings, positives, unchanged
from kwsd.learn.graft import N_SPANS, SPAN_STEPS, Branch, Graphs
from kwsd.learn.lesson import ENOUGH, Lesson, closest_words, notes_on
from kwsd.learn.model_file import learnt_words, save_model, without_own
from kwsd.learn.pack import load_pack
from kwsd.learn.takes import Take
from kwsd.learn.trunk import Trunk, spans_of, windows_of

FEWEST, MOST = 3, 50
"""Takes of a word: fewer teach nothing, and more take longer than a minute."""

_MOST_FOLDS = 10
_N_VERSIONS, _MOST_VERSIONS = 480, 64  # of all takes together, and of each
_REAL_WEIGHT = 4  # of a recording beside synthetic ones
_LOWEST, _HIGHEST = 0.5, 0.9999  # thresholds


class _Examples(NamedTuple):
    """Windows of one take: with the word, of what is not the word, and of the take as it is."""

    said: FloatArray
    other: FloatArray
    unchanged: FloatArray


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
        self,
        word: str,
        takes: list[Take],
        per_hour: float,
        on_progress: Callable[[int], object] = lambda n: None,
        wrong: Sequence[FloatArray] = (),
    ) -> Lesson:
        """Learn a word from takes.

        Args:
            per_hour: allowed false events an hour.
            on_progress: called with 1 after each of `n_parts(takes)` parts.
            wrong: recordings at 16 kHz that must not be taken for the word.

        Raises:
            LearnError: too few or too many takes, or a name that cannot be used.
        """
        refuse_word(word, len(takes))
        self._refuse(word)
        random = np.random.default_rng(len(takes))
        examples = self._examples(takes, wrong, random, on_progress)
        n_recognised = self._recognised_when_left_out(examples, per_hour, random, on_progress)
        branch = self._fit(examples, random)
        threshold = self.threshold(branch, per_hour)
        events = self._events(branch)
        on_progress(1)
        n_false = sum(score >= threshold for score, _ in events)
        hours = self._pack.hours(self._pack.measuring, self.trunk)
        lesson = Lesson(word, branch, threshold, len(takes), n_recognised, n_false, hours, closest_words(events), [])
        return replace(lesson, notes=notes_on(lesson, takes))

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

    def _examples(
        self,
        takes: list[Take],
        wrong: Sequence[FloatArray],
        random: np.random.Generator,
        on_progress: Callable[[int], object],
    ) -> list[_Examples]:
        """Windows of each take."""
        n_versions = min(_MOST_VERSIONS, max(1, _N_VERSIONS // len(takes)))
        mistakes = [windows_of(spans_of(self.trunk.steps(samples))) for samples in wrong]
        is_mixed = any(take.is_synthetic for take in takes)
        examples = []
        for take in takes:
            said = positives(take, n_versions, self.trunk, random)
            if is_mixed and not take.is_synthetic:
                said = np.repeat(said, _REAL_WEIGHT, axis=0)
            begun = beginnings(take, max(1, n_versions // 4), self.trunk, random)
            # Mistakes come once for each take, so that they count as much as all takes together.
            other = np.concatenate([begun, *mistakes])
            examples.append(_Examples(said, other, unchanged(take, self.trunk, random)))
            on_progress(1)
        return examples

    def _recognised_when_left_out(
        self,
        examples: list[_Examples],
        per_hour: float,
        random: np.random.Generator,
        on_progress: Callable[[int], object],
    ) -> int:
        """How many takes are recognised by a branch that was fitted without them."""
        n_recognised = 0
        for fold in np.array_split(random.permutation(len(examples)), min(len(examples), _MOST_FOLDS)):
            branch = self._fit([one for n, one in enumerate(examples) if n not in fold], random, rounds=2)
            threshold = self.threshold(branch, per_hour)
            n_recognised += sum(self.highest(branch, examples[n].unchanged) >= threshold for n in fold)
            on_progress(1)
        return n_recognised

    def _refuse(self, word: str) -> None:
        if word in self.card.labels:
            advice = f"`kwsd learn --forget {word}` removes it" if word in learnt_words(self.card) else "take another"
            raise LearnError(f"{word}: the model has this label already; {advice}")

    def _fit(self, examples: list[_Examples], random: np.random.Generator, **options: int) -> Branch:
        said = np.concatenate([one.said for one in examples])
        other = np.concatenate([one.other for one in examples])
        return fit_branch(said, self._windows[0], other, random, **options)

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
        raise LearnError(f"{word}: {n_takes} recordings; it takes {FEWEST} to {MOST}, better {ENOUGH} or more")
