"""Grafts: the model's own keywords keep their scores to the last bit, and forgetting restores the file's graphs."""

import base64
from dataclasses import replace

import numpy as np
import onnx
import pytest

from kwsd.core.card import STEP_KEY, golden_windows
from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.core.runtime import CPU, open_session
from kwsd.core.state import StepGraph, single_or_many
from kwsd.errors import LearnError
from kwsd.learn.graft import N_SPANS, Branch, Graphs
from kwsd.learn.model_file import only_learnt, save_model
from support import ROOT

STRIDE = 10
WORDS = ("computer", "lamp", "so so", "vier", "пять")


def branch(seed):
    random = np.random.default_rng(seed)
    hidden = random.normal(0, 0.1, (16, 104, N_SPANS)).astype(np.float32)
    return Branch(hidden, np.zeros(16, np.float32), random.normal(size=16).astype(np.float32), 0.1)


def windows_of(graphs, card):
    session = open_session(graphs.model.SerializeToString(), DEFAULT_MODEL, CPU)
    return session.run(None, {"windows": golden_windows(1, 4, card.window_frames, card.frontend)})[0]


def stream_of(graphs, n_rows):
    """Posteriors of the step graph over a minute of noise, for some streams."""
    session = open_session(graphs.step.SerializeToString(), DEFAULT_MODEL, CPU, STRIDE)
    state = single_or_many(StepGraph(session, runs_on_cpu=True), n_rows)
    frames = np.random.default_rng(0).normal(-8, 3, (200, n_rows, STRIDE, 40)).astype(np.float32)
    return np.array([state.step(one, np.arange(n_rows)) for one in frames])


@pytest.mark.parametrize("n_rows", [1, 3])
def test_own_keywords_keep_their_scores_to_the_bit(model, n_rows):
    graphs = Graphs(DEFAULT_MODEL)
    windows, stream = windows_of(graphs, model.card), stream_of(graphs, n_rows)
    scores = []
    for number, word in enumerate(WORDS):
        graphs.add(word, branch(number))
        changed = windows_of(graphs, model.card), stream_of(graphs, n_rows)
        np.testing.assert_array_equal(changed[0][:, :12], windows)
        np.testing.assert_array_equal(changed[1][..., :12], stream)
        for before, (in_window, in_stream) in enumerate(scores):
            np.testing.assert_array_equal(changed[0][:, 12 + before], in_window)
            np.testing.assert_array_equal(changed[1][..., 12 + before], in_stream)
        scores.append((changed[0][:, -1], changed[1][..., -1]))
    assert np.ptp(np.stack([in_stream for _, in_stream in scores])) > 0.1


def test_the_labels_of_learnt_words_alone_are_those_of_their_columns(model, tmp_path):
    graphs, words = Graphs(DEFAULT_MODEL), ["zebra", "apple"]
    for number, word in enumerate(words):
        graphs.add(word, branch(number))
    both = windows_of(graphs, model.card)[:, -2:]
    learnt = replace(
        model.card,
        labels=[*model.card.labels, *words],
        training={**model.card.training, "learnt": {word: {} for word in words}},
        decision=replace(model.card.decision, thresholds=model.card.decision.thresholds | dict.fromkeys(words, 0.9)),
    )
    save_model(graphs, learnt, tmp_path / "both.onnx")
    graphs, card = Graphs(tmp_path / "both.onnx"), load_model(tmp_path / "both.onnx", "cpu").card
    assert only_learnt(graphs, card).labels == ["silence", "unknown", *words]
    np.testing.assert_array_equal(windows_of(graphs, model.card)[:, -2:], both)


def test_both_graphs_give_the_same_score(model):
    graphs = Graphs(DEFAULT_MODEL)
    graphs.add("computer", branch(0))
    frames = np.random.default_rng(0).normal(-8, 3, (1, 20, STRIDE, 40)).astype(np.float32)
    session = open_session(graphs.step.SerializeToString(), DEFAULT_MODEL, CPU, STRIDE)
    state = single_or_many(StepGraph(session, runs_on_cpu=True), 1)
    stream = [state.step(frames[:, n], np.zeros(1, int)) for n in range(20)][-1]
    window = frames.reshape(1, 200, 40)[:, -model.card.window_frames :]
    session = open_session(graphs.model.SerializeToString(), DEFAULT_MODEL, CPU)
    np.testing.assert_allclose(session.run(None, {"windows": window})[0], stream, atol=1e-5)


def test_forgetting_every_word_restores_the_graphs():
    graphs = Graphs(DEFAULT_MODEL)
    before = graphs.model.graph.SerializeToString(), graphs.step.SerializeToString()
    for number, word in enumerate(WORDS):
        graphs.add(word, branch(number))
    for word in (WORDS[2], WORDS[0], WORDS[4], WORDS[1], WORDS[3]):
        graphs.remove(word)
    assert (graphs.model.graph.SerializeToString(), graphs.step.SerializeToString()) == before


def test_a_network_without_a_place_for_a_branch_is_refused(tmp_path):
    with pytest.raises(LearnError, match="cannot take learnt words"):
        Graphs(ROOT / "models" / "light_cnn.onnx")
    model = onnx.load(DEFAULT_MODEL)
    [step] = [one for one in model.metadata_props if one.key == STEP_KEY]
    other = onnx.load_from_string(base64.b64decode(step.value))
    for node in [node for node in other.graph.node if node.op_type == "Relu"]:
        node.op_type = "Abs"
    step.value = base64.b64encode(other.SerializeToString()).decode()
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(LearnError, match="cannot take learnt words"):
        Graphs(tmp_path / "other.onnx").trunk()
