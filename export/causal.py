"""Writes the two graphs of a causal network: for whole windows, and for the newest frames of a stream.

Law: the same code writes both graphs, and nothing is computed twice. In the step graph, a layer
that needs earlier steps has them as a graph input, `past`. The past and the newest steps together
are a graph output, `seen`. The end of `seen` is the next `past`, so the graph makes no extra copy.
One run gives the posteriors of the window that ends with the newest frames.

The graphs are written node by node: tf2onnx's version has three times as many nodes and takes 1.7
times as long for a window, and for a few frames the number of nodes decides the time. Values are
(batch, channels, steps, bands), and matrix products are written as convolutions: ONNX Runtime
computes these separately for each window or stream, so no result depends, to the last bit, on what
shares its batch.
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


def convert_window(model: keras.Model) -> onnx.ModelProto:
    """Make the window graph of a causal network without padding in time; inputs and outputs as `export.convert`.

    Raises:
        ExportError: the network has a layer that this file does not support.
    """
    return _written(_WindowGraph(model), model)


def convert_step(model: keras.Model) -> onnx.ModelProto:
    """Make the step graph of the same network.

    Inputs are `frames`, (batch, n_frames, n_bands), where the network's strides divide `n_frames`,
    and `past_0`, `past_1`, …, (batch, n_past, ...). Outputs are `posteriors` and `seen_0`, `seen_1`,
    …, whose last `n_past` steps are the next pasts. The first pasts can have any values, such as
    zeros: after one window they have no effect.

    Raises:
        ExportError: the network has a layer that this file does not support.
    """
    return _written(_StepGraph(model), model)


class _WindowGraph:
    """A graph under construction; `values` has the name of each Keras tensor's value."""

    def __init__(self, model: keras.Model) -> None:
        self.values: dict[int, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs = [_float("windows", ("batch", *model.input_shape[1:]))]
        self._outputs = [_float("posteriors", ("batch", model.output_shape[-1]))]

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

    def newest(self, x: str, n_steps: int) -> str:
        """The last steps of a layer's input: in a window, all of them."""
        return x

    def entered(self) -> str:
        """The input frames, with an axis for channels."""
        return self.op("Unsqueeze", self._inputs[0].name, self.integers(1))

    def recalled(self, tensor: keras.KerasTensor, n_past: int) -> str:
        """The input of a layer that needs `n_past` earlier steps: in a window, the value alone."""
        return self.of(tensor)

    def cropped(self, tensor: keras.KerasTensor, n_steps: int) -> str:
        """The value without its first steps, whose earlier steps are not in the window.

        It is a convolution that keeps only the newest step. A slice would take the values out of ONNX
        Runtime's blocks of channels, and the sum after it too (81 instead of 70 microseconds a window).
        """
        kernel = np.zeros((tensor.shape[-1], 1, n_steps + 1, 1))
        kernel[:, :, -1] = 1
        return self.op("Conv", self.of(tensor), self.constant(kernel), kernel_shape=[n_steps + 1, 1], group=len(kernel))

    def finished(self, output: keras.KerasTensor) -> onnx.ModelProto:
        self.op("Flatten", self.of(output), output="posteriors")
        graph = helper.make_graph(self._nodes, "kwsd", self._inputs, self._outputs, self._constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)


class _StepGraph(_WindowGraph):
    """The same graph, with state as inputs and outputs."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._inputs = [_float("frames", ("batch", "n_frames", model.input_shape[-1]))]

    def recalled(self, tensor: keras.KerasTensor, n_past: int) -> str:
        """The value with the `n_past` steps before its newest ones.

        Pasts are (batch, steps, bands, channels), so that each step is contiguous. ONNX Runtime
        merges the transpositions with its own, to blocks of channels and back.
        """
        _, _, *bands, channels = tensor.shape
        shape = (*(bands or [1]), channels)
        n_before = len(self._inputs) - 1
        past, seen = f"past_{n_before}", f"seen_{n_before}"
        self._inputs.append(_float(past, ("batch", n_past, *shape)))
        self._outputs.append(_float(seen, ("batch", f"n_{seen}", *shape)))
        newest = self.op("Transpose", self.of(tensor), perm=[0, 2, 3, 1])
        self.op("Concat", past, newest, axis=1, output=seen)
        return self.op("Transpose", seen, perm=[0, 3, 1, 2])

    def newest(self, x: str, n_steps: int) -> str:
        """The last steps of `seen`."""
        return self.op("Slice", x, self.integers(-n_steps), self.integers(_TO_THE_END), self.integers(_STEPS))

    def cropped(self, tensor: keras.KerasTensor, n_steps: int) -> str:
        """The whole value: cropping only removes the steps that a past has added."""
        return self.of(tensor)


def _written(graph: _WindowGraph, model: keras.Model) -> onnx.ModelProto:
    for layer in model.layers:
        write = _WRITERS.get(type(layer))
        if write is None:
            raise ExportError(f"{layer.name}: a {type(layer).__name__} is not supported in causal networks")
        graph.values[id(layer.output)] = write(graph, layer)
    return graph.finished(model.output)


def _float(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _input(graph: _WindowGraph, layer: layers.InputLayer) -> str:
    return graph.entered()


def _same(graph: _WindowGraph, layer: layers.Layer) -> str:
    """Reshapes change nothing in this layout; the next convolution does the padding."""
    return graph.of(layer.input)


def _cropping_1d(graph: _WindowGraph, layer: layers.Cropping1D) -> str:
    return graph.cropped(layer.input, layer.cropping[0])


def _batch_normalization(graph: _WindowGraph, layer: layers.BatchNormalization) -> str:
    """ONNX Runtime merges it with the convolution before it. On the input frames it works on each band."""
    x = graph.of(layer.input)
    gamma, beta, mean, variance = (np.asarray(weight) for weight in layer.get_weights())
    if isinstance(layer.input._keras_history.operation, layers.InputLayer):
        scale = gamma / np.sqrt(variance + layer.epsilon)
        return graph.op("Add", graph.op("Mul", x, graph.constant(scale)), graph.constant(beta - mean * scale))
    constants = [graph.constant(values) for values in (gamma, beta, mean, variance)]
    return graph.op("BatchNormalization", x, *constants, epsilon=layer.epsilon)


def _require(is_known: bool, layer: layers.Layer, what: str) -> None:
    if not is_known:
        raise ExportError(f"{layer.name}: {what} of a {type(layer).__name__} is not supported in causal networks")


def _require_activation(layer: layers.Layer, *known: Callable[..., Any]) -> None:
    _require(layer.activation in known, layer, f"activation {getattr(layer.activation, '__name__', '?')}")


def _conv_2d(graph: _WindowGraph, layer: layers.Conv2D) -> str:
    x, low, high = layer.input, 0, 0
    if isinstance(padding := x._keras_history.operation, layers.ZeroPadding2D):
        x, (_, (low, high)) = padding.input, padding.padding
    _require_activation(layer, keras.activations.linear)
    _require(not layer.use_bias, layer, "a bias")
    n_steps, n_bands = layer.kernel_size
    return graph.op(
        "Conv",
        graph.recalled(x, n_steps - 1),
        graph.constant(np.asarray(layer.kernel).transpose(3, 2, 0, 1)),
        kernel_shape=[n_steps, n_bands],
        strides=list(layer.strides),
        pads=[0, low, 0, high],
    )


def _depthwise_conv_1d(graph: _WindowGraph, layer: layers.DepthwiseConv1D) -> str:
    _require_activation(layer, keras.activations.linear)
    _require(not layer.use_bias, layer, "a bias")
    [n_steps] = layer.kernel_size
    kernel = np.asarray(layer.kernel).transpose(1, 2, 0)[..., None]  # (channels, 1, steps, 1)
    x = graph.recalled(layer.input, n_steps - 1)
    return graph.op("Conv", x, graph.constant(kernel), kernel_shape=[n_steps, 1], group=len(kernel))


def _dense(graph: _WindowGraph, layer: layers.Dense) -> str:
    """A convolution over all bands."""
    _require_activation(layer, keras.activations.linear, keras.activations.softmax)
    before = layer.input._keras_history.operation
    bands = before.input.shape[2:-1] if isinstance(before, layers.Reshape) else ()
    n_bands = bands[0] if bands else 1
    kernel = np.asarray(layer.kernel).reshape(n_bands, -1, layer.units).transpose(2, 1, 0)[:, :, None]
    inputs = [graph.of(layer.input), graph.constant(kernel)]
    if layer.use_bias:
        inputs.append(graph.constant(np.asarray(layer.bias)))
    x = graph.op("Conv", *inputs, kernel_shape=[1, n_bands])
    return graph.op("Softmax", x, axis=1) if layer.activation is keras.activations.softmax else x


def _relu(graph: _WindowGraph, layer: layers.Activation) -> str:
    _require_activation(layer, keras.activations.relu)
    return graph.op("Relu", graph.of(layer.input))


def _add(graph: _WindowGraph, layer: layers.Add) -> str:
    return graph.op("Add", *(graph.of(tensor) for tensor in layer.input))


def _average_pooling_1d(graph: _WindowGraph, layer: layers.AveragePooling1D) -> str:
    [n_steps] = layer.pool_size
    x = graph.newest(graph.recalled(layer.input, n_steps - 1), n_steps)
    return graph.op("AveragePool", x, kernel_shape=[n_steps, 1])  # a ReduceMean takes ten times as long


_WRITERS: dict[type[layers.Layer], Callable[[_WindowGraph, Any], str]] = {
    layers.InputLayer: _input,
    layers.Reshape: _same,
    layers.ZeroPadding2D: _same,
    layers.Cropping1D: _cropping_1d,
    layers.BatchNormalization: _batch_normalization,
    layers.Conv2D: _conv_2d,
    layers.DepthwiseConv1D: _depthwise_conv_1d,
    layers.Dense: _dense,
    layers.Activation: _relu,
    layers.Add: _add,
    layers.AveragePooling1D: _average_pooling_1d,
}
