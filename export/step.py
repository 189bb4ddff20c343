"""The step graph: the same network for the newest frames of a stream alone.

The law of this file: nothing is computed twice. A layer that looks back keeps the last inputs
that it will look at again, its past, which is an input of the graph. All that it sees in a run,
its past and the newest inputs, is an output, whose end is the next past: nothing is copied to say
so. One run gives the posteriors of the window that ends with the newest frames.

Written node by node, since tf2onnx's version has three times as many of them, and for a few
frames it is nodes that cost time. Values are (batch, channels, steps, bands): convolutions
alone, which ONNX Runtime computes for each stream by itself, so what a stream gets does not
depend, to the last bit, on what shares its batch.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from onnx import TensorProto, helper, numpy_helper

from export.convert import OPSET
from kwsd.errors import ExportError

_STEPS = 2  # the axis of a value
_TO_THE_END = np.iinfo(np.int64).max
_IR_VERSION = 8


def convert_step(model: keras.Model) -> onnx.ModelProto:
    """The step graph of a causal network that pads nothing in time.

    Inputs are `frames`, (batch, n_frames, n_bands), as many as the network's strides make a
    whole step of, and `past_0`, `past_1`, …, (batch, n_past, ...); outputs are `posteriors` and
    `seen_0`, `seen_1`, …, whose last `n_past` steps are the next pasts. Pasts of zeros are as good
    as any: a window later nothing is left of them.

    Raises:
        ExportError: it has a layer that this file does not know.
    """
    graph = _Graph(model)
    for layer in model.layers:
        write = _WRITERS.get(type(layer))
        if write is None:
            raise ExportError(f"{layer.name}: a {type(layer).__name__} cannot be computed step by step")
        graph.values[id(layer.output)] = write(graph, layer)
    return graph.finished()


class _Graph:
    """What is written so far; `values` has the name of each Keras tensor's value."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self.values: dict[int, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def of(self, tensor: keras.KerasTensor) -> str:
        return self.values[id(tensor)]

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        kind = np.int64 if array.dtype.kind == "i" else np.float32
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array, kind), name))
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values))

    def last(self, x: str, n_steps: int) -> str:
        return self.op("Slice", x, self.integers(-n_steps), self.integers(_TO_THE_END), self.integers(_STEPS))

    def recall(self, tensor: keras.KerasTensor, n_past: int) -> str:
        """A value with its last `n_past` steps before the newest ones.

        Pasts are (batch, steps, bands, channels), so that a step lies in one piece. ONNX Runtime
        makes the transpositions part of its own, to blocks of channels and back.
        """
        _, _, *bands, channels = tensor.shape
        shape = (*(bands or [1]), channels)
        past, seen = f"past_{len(self._outputs)}", f"seen_{len(self._outputs)}"
        self._inputs.append(_float(past, ("batch", n_past, *shape)))
        self._outputs.append(_float(seen, ("batch", f"n_{seen}", *shape)))
        newest = self.op("Transpose", self.of(tensor), perm=[0, 2, 3, 1])
        self.op("Concat", past, newest, axis=1, output=seen)
        return self.op("Transpose", seen, perm=[0, 3, 1, 2])

    def finished(self) -> onnx.ModelProto:
        n_bands, n_labels = self._model.input_shape[-1], self._model.output_shape[-1]
        self.op("Flatten", self.of(self._model.output), output="posteriors")
        graph = helper.make_graph(
            self._nodes,
            "step",
            [_float("frames", ("batch", "n_frames", n_bands)), *self._inputs],
            [_float("posteriors", ("batch", n_labels)), *self._outputs],
            self._constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)


def _float(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _input(graph: _Graph, layer: layers.Layer) -> str:
    return graph.op("Unsqueeze", "frames", graph.integers(1))


def _same(graph: _Graph, layer: layers.Layer) -> str:
    """Reshapes move nothing in this layout; cropping takes off what a past has put on."""
    return graph.of(layer.input)


def _batch_normalization(graph: _Graph, layer: layers.BatchNormalization) -> str:
    """ONNX Runtime makes it part of the convolution before it; of frames, it is for each band."""
    x = graph.of(layer.input)
    gamma, beta, mean, variance = (np.asarray(weight) for weight in layer.get_weights())
    if isinstance(layer.input._keras_history.operation, layers.InputLayer):
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return graph.op("Add", graph.op("Mul", x, graph.constant(scale)), graph.constant(beta - mean * scale))
    constants = [graph.constant(values) for values in (gamma, beta, mean, variance)]
    return graph.op("BatchNormalization", x, *constants, epsilon=layer.epsilon)


def _conv_2d(graph: _Graph, layer: layers.Conv2D) -> str:
    x, low, high = layer.input, 0, 0
    if isinstance(padding := x._keras_history.operation, layers.ZeroPadding2D):
        x, (_, (low, high)) = padding.input, padding.padding
    n_steps, n_bands = layer.kernel_size
    return graph.op(
        "Conv",
        graph.recall(x, n_steps - 1),
        graph.constant(np.asarray(layer.kernel).transpose(3, 2, 0, 1)),
        kernel_shape=[n_steps, n_bands],
        strides=list(layer.strides),
        pads=[0, low, 0, high],
    )


def _depthwise_conv_1d(graph: _Graph, layer: layers.DepthwiseConv1D) -> str:
    [n_steps] = layer.kernel_size
    kernel = np.asarray(layer.kernel).transpose(1, 2, 0)[..., None]  # (channels, 1, steps, 1)
    x = graph.recall(layer.input, n_steps - 1)
    return graph.op("Conv", x, graph.constant(kernel), kernel_shape=[n_steps, 1], group=len(kernel))


def _dense(graph: _Graph, layer: layers.Dense) -> str:
    """A convolution as wide as the bands."""
    before = layer.input._keras_history.operation
    bands = before.input.shape[2:-1] if isinstance(before, layers.Reshape) else ()
    n_bands = bands[0] if bands else 1
    kernel = np.asarray(layer.kernel).reshape(n_bands, -1, layer.units).transpose(2, 1, 0)[:, :, None]
    inputs = [graph.of(layer.input), graph.constant(kernel)]
    if layer.use_bias:
        inputs.append(graph.constant(np.asarray(layer.bias)))
    x = graph.op("Conv", *inputs, kernel_shape=[1, n_bands])
    return graph.op("Softmax", x, axis=1) if layer.activation is keras.activations.softmax else x


def _relu(graph: _Graph, layer: layers.Activation) -> str:
    return graph.op("Relu", graph.of(layer.input))


def _add(graph: _Graph, layer: layers.Add) -> str:
    return graph.op("Add", *(graph.of(tensor) for tensor in layer.input))


def _average_pooling_1d(graph: _Graph, layer: layers.AveragePooling1D) -> str:
    [n_steps] = layer.pool_size
    newest = graph.last(graph.recall(layer.input, n_steps - 1), n_steps)
    return graph.op("AveragePool", newest, kernel_shape=[n_steps, 1])  # a ReduceMean takes ten times as long


_WRITERS: dict[type[layers.Layer], Callable[[_Graph, Any], str]] = {
    layers.InputLayer: _input,
    layers.Reshape: _same,
    layers.ZeroPadding2D: _same,
    layers.Cropping1D: _same,
    layers.BatchNormalization: _batch_normalization,
    layers.Conv2D: _conv_2d,
    layers.DepthwiseConv1D: _depthwise_conv_1d,
    layers.Dense: _dense,
    layers.Activation: _relu,
    layers.Add: _add,
    layers.AveragePooling1D: _average_pooling_1d,
}
