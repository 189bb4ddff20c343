"""The networks: each a function from a window's shape and a number of words to a Keras model.

The law of this file: plain Keras 3 layers, no Lambda, nothing tied to one backend. Input is
(batch, window_frames, n_bands), output the posteriors of all words that training tells
apart, (batch, n_words); `with_labels` makes of it the model that is shipped.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kwsd.frontend import LOGMEL_16K, SPECTROGRAM_8K, FrontendParams


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network and the features that it takes."""

    build: Callable[[tuple[int, int], int], keras.Model]
    frontend: FrontendParams


def light_cnn(input_shape: tuple[int, int], n_words: int, width: int = 1) -> keras.Model:
    """The light-weight CNN of Kaggle's TensorFlow Speech Recognition Challenge.

    Layer for layer the public notebook "Light-Weight CNN LB 0.74" (A. Ozerin, 2017):
    convolutions are "valid", each group of them is pooled 2x2 and followed by dropout 0.2.
    314 k parameters and 9.4 M multiplies for a second at width 1.

    Args:
        width: factor for the filters of every convolution; the notebook's 0.74 is with 2.
    """
    inputs = keras.Input(input_shape, name="windows")
    x = layers.Reshape((*input_shape, 1))(inputs)
    x = layers.BatchNormalization()(x)
    for filters, kernel_size, n_layers in ((8, 2, 2), (16, 3, 2), (32, 3, 1)):
        for _ in range(n_layers):
            x = layers.Conv2D(filters * width, kernel_size, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Dropout(0.2)(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(128, activation="relu")(x)
        x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(n_words, activation="softmax", name="words")(x))


def light_cnn_wide(input_shape: tuple[int, int], n_words: int) -> keras.Model:
    """`light_cnn` with every convolution doubled."""
    return light_cnn(input_shape, n_words, width=2)


def ds_tcn(input_shape: tuple[int, int], n_words: int) -> keras.Model:
    """A causal network of depthwise-separable convolutions over time; the bands are its channels.

    Of the family of TC-ResNet (S. Choi et al., 2019) and MatchboxNet (S. Majumdar,
    B. Ginsburg, 2020). Every output sees only the past, and no convolution is padded: what
    is averaged at the end are the outputs that have their whole past inside the window. So
    a stream that is computed frame by frame gives the numbers of the window.
    """
    inputs = keras.Input(input_shape, name="windows")
    x = layers.BatchNormalization()(inputs)
    x = layers.Conv1D(_TCN_CHANNELS, 5, strides=2, use_bias=False)(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for kernel_size in _TCN_KERNELS:
        past = layers.Cropping1D((kernel_size - 1, 0))(x)
        x = layers.DepthwiseConv1D(kernel_size, use_bias=False)(x)
        x = layers.Conv1D(_TCN_CHANNELS, 1, use_bias=False)(x)
        x = layers.Add()([layers.BatchNormalization()(x), past])
        x = layers.Activation("relu")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(n_words, activation="softmax", name="words")(x))


_TCN_CHANNELS = 104
_TCN_KERNELS = (5, 5, 7, 7, 9, 9)


def with_labels(model: keras.Model, n_labels: int) -> keras.Model:
    """The model that is shipped: all words but the keywords and silence count as unknown.

    Args:
        model: of words, of which the first `n_labels` are the labels, unknown the last.

    Returns:
        a model that shares the weights, posteriors (batch, n_labels).
    """
    sums = np.eye(model.output_shape[-1], n_labels, dtype=np.float32)
    sums[n_labels:, -1] = 1
    posteriors = layers.Dense(n_labels, use_bias=False, trainable=False, name="posteriors")
    labelled = keras.Model(model.input, posteriors(model.output))
    posteriors.set_weights([sums])
    return labelled


def multiplies(model: keras.Model) -> int:
    """Multiplies of all convolutions and dense layers for one window."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.DepthwiseConv1D):
            total += math.prod(layer.output.shape[1:]) * layer.kernel.shape[0]
        elif isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Dense):
            total += math.prod(layer.output.shape[1:]) * math.prod(layer.kernel.shape[:-1])
    return total


ARCHITECTURES = {
    "ds_tcn": Architecture(ds_tcn, LOGMEL_16K),
    "light_cnn": Architecture(light_cnn, SPECTROGRAM_8K),
    "light_cnn_wide": Architecture(light_cnn_wide, SPECTROGRAM_8K),
}
