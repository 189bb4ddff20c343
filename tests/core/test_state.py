"""Each stream has its own state; without a step graph the state is the last second of frames."""

import numpy as np
import pytest

from kwsd.core.card import DecisionParams, GoldenCheck, ModelCard
from kwsd.core.frontend import LOGMEL_16K
from kwsd.core.state import ManyStates, SingleState, StepGraph, WindowState, single_or_many, step_through


def window_card(window_frames, stride_frames):
    decision = DecisionParams(1, 1.0, {"a": 0.5})
    return ModelCard(
        name="test",
        labels=["a", "silence", "unknown"],
        silence="silence",
        unknown="unknown",
        frontend=LOGMEL_16K,
        window_frames=window_frames,
        stride_frames=stride_frames,
        decision=decision,
        golden=GoldenCheck(0, []),
    )


@pytest.mark.parametrize(("window", "stride"), [(98, 10), (50, 10), (10, 10), (7, 10)])
def test_windows_end_with_the_newest_stride(window, stride):
    seen = []

    def posteriors(windows):
        seen.append(windows[0])
        return np.ones((1, 3), np.float32)

    state = WindowState(window_card(window, stride), posteriors, 2)
    streams = np.random.default_rng(0).standard_normal((2, 200, 40)).astype(np.float32)
    for start in range(0, 200, stride):
        given = state.step(streams[:, start : start + stride], np.arange(2))
        assert given.shape == (2, 3)
    of_first = seen[::2]
    for n, one in enumerate(of_first, 1):
        if n * stride >= window:
            np.testing.assert_array_equal(one, streams[0, n * stride - window : n * stride])
    assert len(of_first) == 200 // stride


def test_stepping_through_a_window_gives_its_posteriors(model):
    state = WindowState(model.card, model.posteriors, 3)
    windows = np.random.default_rng(0).standard_normal((3, 98, 40)).astype(np.float32)
    want = np.concatenate([model.posteriors(window[None]) for window in windows])
    np.testing.assert_array_equal(step_through(state, windows, 10), want)


@pytest.mark.parametrize("kind", ["step graph", "windows"])
def test_a_row_does_not_depend_on_the_others(model, kind):
    """A row gives the same bits whether it is stepped alone or with others, also after resets."""

    def new_state(n_rows):
        return model.new_state(n_rows) if kind == "step graph" else WindowState(model.card, model.posteriors, n_rows)

    assert isinstance(model.new_state(1), SingleState)
    assert isinstance(model.new_state(2), ManyStates)
    random = np.random.default_rng(0)
    together, alone = new_state(1).grown(3), {}
    n_compared = 0
    for _ in range(60):
        rows = np.sort(random.choice(4, random.integers(1, 5), replace=False))
        if random.random() < 0.1:
            together.reset(int(rows[0]))
            alone.pop(int(rows[0]), None)
        frames = random.normal(-10, 4, (len(rows), 10, 40)).astype(np.float32)
        posteriors = together.step(frames, rows)
        for n, row in enumerate(rows.tolist()):
            own = alone.setdefault(row, new_state(1)).step(frames[n : n + 1], np.zeros(1, np.int64))
            np.testing.assert_array_equal(posteriors[n], own[0])
            n_compared += 1
    assert n_compared > 100


class Elsewhere:
    """A session on a device with its own memory: each input is copied when it is bound."""

    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def io_binding(self):
        binding = self._session.io_binding()
        bind = binding.bind_cpu_input
        copies = binding.copies = []  # kept alive: on the CPU a run reads them in place

        def bind_copy(name, array):
            copies.append(np.array(array))
            bind(name, copies[-1])

        binding.bind_cpu_input = bind_copy
        return binding


@pytest.mark.parametrize("n_rows", [1, 3])
def test_a_device_gets_new_inputs_in_every_run(model, n_rows):
    graph = StepGraph(Elsewhere(model._step._session), runs_on_cpu=False)
    elsewhere, here = single_or_many(graph, n_rows), model.new_state(n_rows)
    frames = np.random.default_rng(0).normal(-10, 4, (20, n_rows, 10, 40)).astype(np.float32)
    rows = np.arange(n_rows)
    for one in frames:
        np.testing.assert_array_equal(elsewhere.step(one, rows), here.step(one, rows))
