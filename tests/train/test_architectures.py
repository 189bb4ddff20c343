"""The default network is small and causal, and gives the same outputs for a long input as for its windows."""

import keras
import numpy as np
import pytest

from train.architectures import ARCHITECTURES, ds_tcn, light_cnn, multiplies, with_labels


def test_the_default_network_is_small():
    model = with_labels(ds_tcn((98, 40), 37), 12)
    assert model.count_params() <= 100_000
    assert multiplies(model) <= 6_000_000
    assert not [layer for layer in model.layers if isinstance(layer, keras.layers.Lambda)]


def test_no_convolution_looks_ahead():
    """Before the pooling, a later frame does not change earlier outputs."""
    model = ds_tcn((98, 40), 37)
    last = next(layer for layer in model.layers if isinstance(layer, keras.layers.AveragePooling1D))
    past = keras.Model(model.input, last.input)
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 98, 40)).astype(np.float32)
    later = x.copy()
    later[:, 90:] = 0
    before, after = np.asarray(past(x))[0], np.asarray(past(later))[0]
    changed = np.flatnonzero(np.abs(before - after).max(axis=1) > 1e-6)
    n_outputs = len(before)
    assert len(changed)
    # Outputs are two frames apart and the last one sees frame 96.
    assert changed.min() >= n_outputs - 1 - (96 - 90) // 2


def test_a_long_input_gives_the_outputs_of_its_windows():
    """No padding: the outputs for minutes are the outputs for each second in them."""
    short, long = ds_tcn((98, 40), 37), ds_tcn((198, 40), 37)
    long.set_weights(short.get_weights())
    x = np.random.default_rng(0).standard_normal((1, 198, 40)).astype(np.float32)
    windows = np.concatenate([x[:, start : start + 98] for start in range(0, 101, 2)])
    of_windows, of_all = np.asarray(short(windows))[:, 0], np.asarray(long(x))[0]
    assert of_all.shape == (51, 37)
    np.testing.assert_allclose(of_all, of_windows, atol=1e-5)


def test_multiplies_are_counted():
    inputs = keras.Input((10, 4))
    x = keras.layers.Conv1D(8, 3, strides=1)(inputs)  # 8 outputs x 8 filters x 3 x 4
    x = keras.layers.DepthwiseConv1D(5)(x)  # 4 outputs x 8 channels x 5
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(x))  # 32 x 2
    assert multiplies(keras.Model(inputs, outputs)) == 8 * 8 * 12 + 4 * 8 * 5 + 64


def test_other_words_count_as_unknown():
    model = ds_tcn((98, 40), 7)
    x = np.random.default_rng(0).standard_normal((5, 98, 40)).astype(np.float32)
    words = np.asarray(model(x, training=False))[:, 0]
    posteriors = np.asarray(with_labels(model, 4)(x, training=False))
    np.testing.assert_allclose(posteriors[:, :3], words[:, :3], atol=1e-6)
    np.testing.assert_allclose(posteriors[:, 3], words[:, 3:].sum(axis=1), atol=1e-6)


def test_the_light_cnn_is_the_network_of_the_notebook():
    """314 k parameters for 99x81 and twelve labels; `wide` doubles every convolution."""
    model = light_cnn((99, 81), 12)
    assert model.count_params() == pytest.approx(314_000, rel=0.01)
    assert multiplies(model) == pytest.approx(9.4e6, rel=0.02)
    kinds = [type(layer).__name__ for layer in model.layers]
    group = ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout"]
    dense = ["Dense", "BatchNormalization"] * 2
    head = ["InputLayer", "Reshape", "BatchNormalization", "Reshape"]
    assert kinds == [*head, *group, *group, "Conv2D", "MaxPooling2D", "Dropout", "Flatten", *dense, "Dense", "Reshape"]
    filters = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert filters == [8, 8, 16, 16, 32]
    wide = ARCHITECTURES["light_cnn_wide"].build((99, 81), 12)
    assert [layer.filters for layer in wide.layers if isinstance(layer, keras.layers.Conv2D)] == [16, 16, 32, 32, 64]
    assert ARCHITECTURES["light_cnn_wide"].frontend.name == "spectrogram_8k"
