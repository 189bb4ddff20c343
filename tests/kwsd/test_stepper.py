"""A model that knows whole windows only is stepped: every stride it gets the last second."""

import numpy as np
import pytest

from kwsd.card import DecisionParams, GoldenCheck, ModelCard
from kwsd.frontend import LOGMEL_16K
from kwsd.stepper import WindowStepper, step_through


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

    stepper = WindowStepper(window_card(window, stride), posteriors)
    streams = np.random.default_rng(0).standard_normal((2, 200, 40)).astype(np.float32)
    pasts = stepper.begin(2)
    for start in range(0, 200, stride):
        given, pasts = stepper.step(streams[:, start : start + stride], pasts)
        assert given.shape == (2, 3)
    of_first = seen[::2]
    for n, one in enumerate(of_first, 1):
        if n * stride >= window:
            np.testing.assert_array_equal(one, streams[0, n * stride - window : n * stride])
    assert len(of_first) == 200 // stride


def test_stepping_through_a_window_gives_its_posteriors(model):
    stepper = WindowStepper(model.card, model.posteriors)
    windows = np.random.default_rng(0).standard_normal((3, 98, 40)).astype(np.float32)
    want = np.concatenate([model.posteriors(window[None]) for window in windows])
    np.testing.assert_array_equal(step_through(stepper, windows, 10), want)
