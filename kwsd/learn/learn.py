"""Learning a word, read from top to bottom: takes, examples, branch, figures, threshold."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.model import load_model
from kwsd.core.rows import IntArray
from kwsd.errors import LearnError
from kwsd.learn.branch import fit_branch
from kwsd.learn.examples import beginnings, positives, unchanged
from kwsd.learn.graft import SPAN_STEPS, STEP_FRAMES, Branch, Graphs
from kwsd.learn.judge import Judge
from kwsd.learn.lesson import ENOUGH, Lesson, closest_words, notes_on
from kwsd.learn.model_file import learnt_words, only_learnt, save_model
from kwsd.learn.pack import load_pack
from kwsd.learn.takes import RATE_HZ, Take
from kwsd.learn.trunk import Trunk, spans_of, windows_of

FEWEST, MOST = 3, 50
"""Takes of a word: fewer teach nothing, and more take longer than a minute."""

_MOST_FOLDS = 10
_N_VERSIONS, _MOST_VERSIONS = 480, 64  # of all takes together, and of each
_REAL_WEIGHT = 4  # of a recording beside synthetic ones


class _Examples(NamedTuple):
    """Windows of one take: with the word, of what is not the word, and of the take as it is."""

    said: FloatArray
    other: FloatArray
    unchanged: FloatArray


class Teacher:
    """Learns words for one model.

    Args:
        path, pack: of the model, and of the pack that fits it.

    Attributes:
        trunk, judge: of this model.

    Raises:
        ModelError, LearnError: the model or the pack cannot be used.
    """

    def __init__(self, path: Path, pack: Path) -> None:
        self._card = load_model(path, "cpu").card  # it has passed its golden check
        if self._card.frontend.sample_rate_hz != RATE_HZ:
            raise LearnError(f"{path}: takes {self._card.frontend.sample_rate_hz} Hz; learning needs {RATE_HZ} Hz")
        if self._card.stride_frames != STEP_FRAMES * SPAN_STEPS:
            raise LearnError(f"{path}: decides every {self._card.stride_seconds:g} s; learning needs every 0.1 s")
        self._graphs = Graphs(path)
        self.trunk = Trunk(self._graphs, self._card, path)
        self._pack = load_pack(pack, self.trunk)
        self.judge = Judge(self._card, self._pack)

    def check_name(self, word: str) -> None:
        """Check a word's name.

        Raises:
            LearnError: it cannot be used, or the model has it already.
        """
        if not word.isprintable() or not word.strip() or set(word) & set("/,"):
            raise LearnError(f"{word!r}: no name for a word; take letters, without / and comma")
        if word in self._card.labels:
            advice = f"`kwsd learn --forget {word}` removes it" if word in learnt_words(self._card) else "take another"
            raise LearnError(f"{word}: the model has this label already; {advice}")

    def kind(self, word: str) -> int:
        """The number of this very word in the pack; -1 if it is not there."""
        names = [name.casefold().replace("_", " ") for name in self._pack.names]
        name = word.casefold().replace("_", " ")
        return names.index(name) if name in names else -1

    def learn(
        self,
        word: str,
        takes: list[Take],
        per_hour: float,
        on_progress: Callable[[int], object] = lambda n: None,
        wrong: Sequence[FloatArray] = (),
    ) -> Lesson:
        """Learn a word from takes. Synthetic takes beside real ones only teach: no figure and no limit counts them.

        Args:
            per_hour: allowed false events an hour.
            on_progress: called with 1 after each of `n_parts(word, takes)` parts.
            wrong: recordings at 16 kHz that must not be taken for the word.

        Raises:
            LearnError: too few or too many takes, or a name that cannot be used.
        """
        self.check_name(word)
        counted = counted_takes(word, takes)
        kind, random = self.kind(word), np.random.default_rng(0)
        examples = self._examples(takes, wrong, random, on_progress)
        n_recognised = 0
        for fold in np.array_split(random.permutation(counted), min(len(counted), _MOST_FOLDS)):
            n_recognised += self._n_recognised(examples, fold, kind, per_hour, random)
            on_progress(1)
        branch = self._fit(examples, kind, random)
        events = self.judge.events(branch, kind)
        threshold = self.judge.threshold(events, per_hour)
        on_progress(1)
        synthetic = [take for take in takes if take.is_synthetic]
        lesson = Lesson(
            word=word,
            branch=branch,
            threshold=threshold,
            n_real=len(takes) - len(synthetic),
            n_synthetic=len(synthetic),
            synthesiser=synthetic[0].synthesiser if synthetic else "",
            n_recognised=n_recognised,
            n_false=sum(score >= threshold for score, _ in events),
            hours=self.judge.hours,
            closest=closest_words(events),
            notes=[],
        )
        return replace(lesson, notes=notes_on(lesson, takes, per_hour))

    @staticmethod
    def n_parts(word: str, takes: list[Take]) -> int:
        """Parts of the work, for a progress bar."""
        return len(takes) + min(len(counted_takes(word, takes)), _MOST_FOLDS) + 1

    def add(self, lesson: Lesson) -> None:
        """Graft a lesson's branch."""
        self._graphs.add(lesson.word, lesson.branch)
        card, decision = self._card, self._card.decision
        thresholds = {**decision.thresholds, lesson.word: round(lesson.threshold, 6)}
        learnt = {**learnt_words(card), lesson.word: lesson.to_dict()}
        self._card = replace(
            card,
            labels=[*card.labels, lesson.word],
            decision=replace(decision, thresholds=thresholds),
            training={**card.training, "learnt": learnt},
        )

    def save(self, path: Path, is_only: bool) -> None:
        """Write the model file, after its golden check; with `is_only`, without the keywords it came with."""
        if is_only:
            self._card = only_learnt(self._graphs, self._card)
        save_model(self._graphs, self._card, path)

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
            examples.append(_Examples(said, other, unchanged(take, self.trunk)))
            on_progress(1)
        return examples

    def _n_recognised(
        self, examples: list[_Examples], left_out: IntArray, kind: int, per_hour: float, random: np.random.Generator
    ) -> int:
        """How many of some takes a branch recognises that was fitted without them."""
        branch = self._fit([one for n, one in enumerate(examples) if n not in left_out], kind, random, rounds=2)
        threshold = self.judge.threshold(self.judge.events(branch, kind), per_hour)
        return sum(self.judge.highest(branch, examples[n].unchanged) >= threshold for n in left_out)

    def _fit(self, examples: list[_Examples], kind: int, random: np.random.Generator, **options: int) -> Branch:
        said = np.concatenate([one.said for one in examples])
        other = np.concatenate([one.other for one in examples])
        negatives = self._pack.training
        return fit_branch(said, negatives, ~negatives.has(kind), other, random, **options)


def counted_takes(word: str, takes: list[Take]) -> list[int]:
    """The takes that count: the real ones, or all if a synthesiser spoke all.

    Raises:
        LearnError: too few or too many.
    """
    real = [n for n, take in enumerate(takes) if not take.is_synthetic]
    counted = real or list(range(len(takes)))
    if len(counted) > MOST or len(takes) < FEWEST:
        raise LearnError(
            f"{word}: needs {FEWEST} to {MOST} recordings, better {ENOUGH} or more; there are {len(counted)}"
        )
    return counted
