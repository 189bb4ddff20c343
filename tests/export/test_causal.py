"""Both graphs give the same results as Keras: the window graph in any batch, the step graph with any frame counts."""

import re

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from export.causal import convert_step, convert_window
from kwsd.errors import ExportError
from train.architectures import ds_tcn, with_labels


@pytest.fixture(scope="module")
def network():
    """The default network, with random normalisation weights, so that no normalisation is an identity."""
    keras.utils.set_random_seed(0)
    model = with_labels(ds_tcn((98, 40), 37), 12)
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def session(network):
    return loaded(convert_step(network))


def loaded(graph):
    onnx.checker.check_model(graph)
    return ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])


def begin(session, n_streams):
    return [np.zeros((n_streams, *one.shape[1:]), np.float32) for one in session.get_inputs()[1:]]


def step(session, frames, pasts):
    names = [one.name for one in session.get_inputs()]
    posteriors, *seen = session.run(None, dict(zip(names, (frames, *pasts), strict=True)))
    return posteriors, [one[:, -past.shape[1] :] for one, past in zip(seen, pasts, strict=True)]


def test_the_window_graph_gives_the_networks_posteriors_in_any_batch(network):
    session = loaded(convert_window(network))
    windows = np.random.default_rng(3).normal(-10, 4, (33, 98, 40)).astype(np.float32)
    [given] = session.run(None, {"windows": windows})
    np.testing.assert_allclose(given, network.predict(windows, verbose=0), atol=1e-6)
    assert given.std(axis=0).max() > 0.001  # not a constant
    alone = np.concatenate([session.run(None, {"windows": window[None]})[0] for window in windows])
    np.testing.assert_array_equal(given, alone)


@pytest.mark.parametrize("sizes", [[2] * 200, [10] * 40, [8, *[10] * 39], [98, *[2] * 100], [6, 44, 2, 98, 18, 30] * 2])
def test_a_stepped_stream_gives_the_posteriors_of_its_windows(network, session, sizes):
    frames = np.random.default_rng(1).normal(-10, 4, (2, sum(sizes), 40)).astype(np.float32)
    pasts, end, windows, given = begin(session, 2), 0, [], []
    for size in sizes:
        posteriors, pasts = step(session, frames[:, end : end + size], pasts)
        end += size
        if end >= 98:
            windows.append(frames[:, end - 98 : end])
            given.append(posteriors)
    want = network.predict(np.concatenate(windows), verbose=0)
    assert len(given) > 5
    np.testing.assert_allclose(np.concatenate(given), want, atol=1e-5)
    assert want.std(axis=0).max() > 0.001  # not a constant


def test_the_initial_pasts_have_no_effect_after_a_window(session):
    frames = np.random.default_rng(2).normal(-10, 4, (1, 100, 40)).astype(np.float32)
    zeros = begin(session, 1)
    ones = [np.ones_like(past) for past in zeros]
    np.testing.assert_array_equal(step(session, frames, zeros)[0], step(session, frames, ones)[0])


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (keras.layers.MaxPooling1D(2, name="pool"), "pool: a MaxPooling1D is not supported"),
        (keras.layers.Activation("tanh", name="act"), "act: activation tanh of a Activation is not supported"),
        (keras.layers.Dense(4, activation="relu", name="wide"), "wide: activation relu of a Dense is not supported"),
        (keras.layers.DepthwiseConv1D(3, name="deep"), "deep: a bias of a DepthwiseConv1D is not supported"),
    ],
    ids=lambda one: getattr(one, "name", None),
)
def test_an_unsupported_layer_is_named(layer, problem):
    frames = keras.Input((98, 40))
    with pytest.raises(ExportError, match=re.escape(problem)):
        convert_step(keras.Model(frames, layer(frames)))
