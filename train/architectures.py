"""The networks: functions that make a Keras model from a window's shape and a number of words.

Law: plain Keras 3 layers, no Lambda, nothing tied to one backend. Input is (batch, n_frames,
n_bands). Output is (batch, n_windows, n_words): for each window in the input, the posteriors of
all words that training distinguishes. `with_labels` turns such a model into the shipped one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kwsd.core.frontend import LOGMEL_16K, SPECTROGRAM_8K, FrontendParams


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network and the features that it takes.

    Attributes:
        n_windows, step_frames: training uses stretches of this many windows, this many frames apart.
    """

    build: Callable[[tuple[int, int], int], keras.Model]
    frontend: FrontendParams
    n_windows: int = 1
    step_frames: int = 1

    @property
    def is_causal(self) -> bool:
        """Whether the outputs for a stretch equal the outputs for each of its windows."""
        return self.n_windows > 1


def light_cnn(input_shape: tuple[int, int], n_words: int, width: int = 1) -> keras.Model:
    """The light-weight CNN of Kaggle's TensorFlow Speech Recognition Challenge.

    It has the same layers as the public notebook "Light-Weight CNN LB 0.74" (A. Ozerin, 2017),
    except for a reshape around the first norm. Convolutions are "valid"; each group of them is
    followed by 2x2 pooling and dropout 0.2. Width 1 has 314 k parameters and needs 9.4 M multiplies
    for a second of audio.

    Args:
        width: factor for the filters of every convolution; the notebook reached 0.74 with 2.
    """
    inputs = keras.Input(input_shape, name="windows")
    x = layers.Reshape((1, *input_shape))(inputs)  # one channel as the last axis is slow in ONNX Runtime
    x = layers.BatchNormalization(axis=1)(x)
    x = layers.Reshape((*input_shape, 1))(x)
    for filters, kernel_size, n_layers in ((8, 2, 2), (16, 3, 2), (32, 3, 1)):
        for _ in range(n_layers):
            x = layers.Conv2D(filters * width, kernel_size, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
        x = layers.Dropout(0.2)(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dense(128, activation="relu")(x)
        x = layers.BatchNormalization()(x)
    x = layers.Dense(n_words, activation="softmax", name="words")(x)
    return keras.Model(inputs, layers.Reshape((1, n_words))(x))


def light_cnn_wide(input_shape: tuple[int, int], n_words: int) -> keras.Model:
    """`light_cnn` with twice the filters in every convolution."""
    return light_cnn(input_shape, n_words, width=2)


def ds_tcn(input_shape: tuple[int, int], n_words: int) -> keras.Model:
    """A causal network of depthwise-separable convolutions over time.

    It belongs to the family of TC-ResNet (S. Choi et al., 2019) and MatchboxNet (S. Majumdar,
    B. Ginsburg, 2020). Two small convolutions over time and bands come first: they learn a pattern
    once, although it shifts along the bands from voice to voice (B. Kim et al., 2021). Every output
    depends only on earlier frames, and nothing is padded in time: a window averages the outputs
    whose whole receptive field is inside it. So a stream gives the same numbers as its windows,
    whether it is computed frame by frame or minutes at once.
    """
    n_frames, n_bands = input_shape
    inputs = keras.Input(input_shape, name="windows")
    x = layers.BatchNormalization()(inputs)
    x = layers.Reshape((n_frames, n_bands, 1))(x)
    for filters, time_stride in ((8, 2), (16, 1)):
        x = layers.ZeroPadding2D(((0, 0), (1, 1)))(x)
        x = layers.Conv2D(filters, 3, strides=(time_stride, 2), use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    x = layers.Reshape((x.shape[1], x.shape[2] * x.shape[3]))(x)
    x = layers.Dense(_TCN_CHANNELS, use_bias=False)(x)
    x = layers.Activation("relu")(layers.BatchNormalization()(x))
    for kernel_size in _TCN_KERNELS:
        past = layers.Cropping1D((kernel_size - 1, 0))(x)
        x = layers.DepthwiseConv1D(kernel_size, use_bias=False)(x)
        x = layers.Dense(_TCN_CHANNELS, use_bias=False)(x)  # pointwise; a matrix, so Muon trains it
        x = layers.Add()([layers.BatchNormalization()(x), past])
        x = layers.Activation("relu")(x)
    x = layers.AveragePooling1D(_TCN_POOLED, strides=1)(x)
    return keras.Model(inputs, layers.Dense(n_words, activation="softmax", name="words")(x))


_TCN_CHANNELS = 104
_TCN_KERNELS = (5, 5, 7, 7, 9, 9)
_TCN_POOLED = 10
"""All outputs of a window of 98 frames: each depends on 79 frames, and they are two frames apart."""


def with_labels(model: keras.Model, n_labels: int) -> keras.Model:
    """Make the shipped model, which counts all words except keywords and silence as unknown.

    Args:
        model: gives the words of one window; the first `n_labels` of them are the labels, with
            unknown last.

    Returns:
        a model that shares the weights and gives posteriors (batch, n_labels).
    """
    n_words = model.output_shape[-1]
    sums = np.eye(n_words, n_labels, dtype=np.float32)
    sums[n_labels:, -1] = 1
    posteriors = layers.Dense(n_labels, use_bias=False, trainable=False, name="posteriors")
    labelled = keras.Model(model.input, posteriors(layers.Reshape((n_words,))(model.output)))
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
    "ds_tcn": Architecture(ds_tcn, LOGMEL_16K, n_windows=201, step_frames=2),
    "light_cnn": Architecture(light_cnn, SPECTROGRAM_8K),
    "light_cnn_wide": Architecture(light_cnn_wide, SPECTROGRAM_8K),
}
