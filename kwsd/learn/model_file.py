"""Model files with learnt words: what their cards say, and how they are written and changed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kwsd.core.card import ModelCard, golden_windows
from kwsd.core.model import load_model
from kwsd.core.runtime import CPU, open_session
from kwsd.errors import LearnError
from kwsd.files import whole
from kwsd.learn.graft import Graphs


def learnt_words(card: ModelCard) -> dict[str, Any]:
    """What the card says about each learnt word, in no order."""
    learnt: dict[str, Any] = card.training.get("learnt", {})
    return learnt


def forget(path: Path, words: list[str], output: Path) -> list[str]:
    """Write a model file without some learnt words.

    Returns:
        the keywords that remain.

    Raises:
        LearnError: the model has not learnt one of them, or would have no keyword left.
    """
    card, graphs = load_model(path, "cpu").card, Graphs(path)
    for word in dict.fromkeys(words):
        if word not in learnt_words(card):
            known = ", ".join(learnt_words(card)) or "none"
            raise LearnError(f"{word}: not a learnt word of {path}; there are: {known}")
        graphs.remove(word)
        card = _without(card, [word])
    if not card.keywords:
        raise LearnError(f"{path}: would have no keyword left")
    save_model(graphs, card, output)
    return card.keywords


def only_learnt(graphs: Graphs, card: ModelCard) -> ModelCard:
    """Leave out the keywords that the model came with; returns the new card."""
    first = [label for label in card.labels if label not in learnt_words(card)]
    graphs.keep_only(len(first), first.index(card.silence), first.index(card.unknown))
    card = _without(card, [label for label in first if label not in (card.silence, card.unknown)])
    learnt = [label for label in card.labels if label in learnt_words(card)]  # in the order of the graph's columns
    return replace(card, labels=[card.silence, card.unknown, *learnt])


def save_model(graphs: Graphs, card: ModelCard, path: Path) -> None:
    """Write a model file with golden posteriors of its own graph, and load it once before it gets its name."""
    session = open_session(graphs.serialised(card.to_json()), path, CPU)
    windows = golden_windows(card.golden.seed, len(card.golden.posteriors), card.window_frames, card.frontend)
    [posteriors] = session.run(None, {session.get_inputs()[0].name: windows})
    card = replace(card, golden=replace(card.golden, posteriors=posteriors.astype(float).tolist()))
    with whole(path) as part:
        part.write_bytes(graphs.serialised(card.to_json()))
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
