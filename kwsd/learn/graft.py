"""Grafts the branches of learnt words onto the two graphs of a model, and takes them off again.

Law: no node of the model is changed but the one that makes the output (and the sums over its words,
if its keywords are left out), so its own keywords keep their scores to the last bit. Every node and
constant that is added has a name that begins with `own/`.

A branch reads the output of the block `_BLOCKS_BACK` before the last: its newest 25 steps, half a
second, which depend on about a second of audio. It averages them over five equal spans. The means
keep the order of the sounds, which the network's own average at its end loses.
"""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from kwsd.audio import FloatArray
from kwsd.core.card import METADATA_KEY, STEP_KEY
from kwsd.errors import LearnError

N_SPANS = 5
STEP_FRAMES = 2  # the trunk skips every other frame
SPAN_STEPS = 5  # a stride: the step graph remembers the spans of earlier strides
_BLOCKS_BACK = 2
_OWN = "own/"
_MEANS, _SCORES = f"{_OWN}means", f"{_OWN}scores"
_CHANNELS_LAST, _SPAN = [0, 2, 3, 1], [SPAN_STEPS, 1]
_NO_PLACE = "cannot take learnt words; use the bundled model, or train a ds_tcn and export it with this kwsd"


@dataclass(frozen=True, slots=True)
class Branch:
    """A small network from the means to one score.

    Attributes:
        hidden, hidden_bias: shapes (n_hidden, n_channels, N_SPANS) and (n_hidden,).
        output, output_bias: shape (n_hidden,), and a number.
    """

    hidden: FloatArray
    hidden_bias: FloatArray
    output: FloatArray
    output_bias: float

    @property
    def n_parameters(self) -> int:
        return self.hidden.size + self.hidden_bias.size + self.output.size + 1


class Graphs:
    """The window graph and the step graph of a model file, to be changed together.

    Raises:
        LearnError: the file has no step graph; or, from `add` and `trunk`, not the layers that a branch needs.
    """

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self._properties = {one.key: one for one in self.model.metadata_props}
        if STEP_KEY not in self._properties:
            raise LearnError(f"{path}: {_NO_PLACE}")
        self.step = onnx.load_from_string(base64.b64decode(self._properties[STEP_KEY].value))

    def add(self, word: str, branch: Branch) -> None:
        """Add a word's branch; its score becomes the last column of the posteriors."""
        for graph in (self.model.graph, self.step.graph):
            means = _shared_means(graph, is_step=graph is self.step.graph)
            _add_branch(graph, means, word, branch)

    def remove(self, word: str) -> None:
        """Remove a word's branch, and with the last one everything that the branches shared."""
        for graph in (self.model.graph, self.step.graph):
            scores = next(node for node in graph.node if node.name == _SCORES)
            scores.input.remove(f"{_OWN}{word}/score")
            _remove(graph, f"{_OWN}{word}/")
            if len(scores.input) == 1:
                flatten = _producer(graph, "posteriors")
                flatten.input[0] = scores.input[0]
                _remove(graph, _OWN)
            _set_width(graph)

    def keep_only(self, n_labels: int, silence: int, unknown: int) -> None:
        """Reduce the model's own labels to silence and unknown. Every keyword then counts as unknown."""
        for graph in (self.model.graph, self.step.graph):
            sums = _sums(graph)
            weights = numpy_helper.to_array(sums)
            keywords = [n for n in range(n_labels) if n not in (silence, unknown)]
            kept = weights[[silence, unknown]].copy()
            kept[1] += weights[keywords].sum(axis=0)
            sums.CopyFrom(numpy_helper.from_array(kept, sums.name))
            _set_width(graph)

    def serialised(self, card: str) -> bytes:
        """The model file with these graphs and another card."""
        self._properties[STEP_KEY].value = base64.b64encode(self.step.SerializeToString()).decode()
        self._properties[METADATA_KEY].value = card
        return bytes(self.model.SerializeToString())

    def trunk(self) -> bytes:
        """The part of the step graph that makes what a branch sees, as output `trunk`: (batch, channels, n, 1)."""
        graph, tap = self.step.graph, _tap(self.step.graph)
        needed = {tap}
        nodes = []
        for node in reversed(graph.node):
            if needed & set(node.output):
                nodes.append(node)
                needed |= set(node.input)
        end = helper.make_node("Identity", [tap], ["trunk"])
        output = helper.make_tensor_value_info("trunk", TensorProto.FLOAT, None)
        inputs, weights = ([one for one in field if one.name in needed] for field in (graph.input, graph.initializer))
        part = helper.make_graph([*reversed(nodes), end], "trunk", inputs, [output], weights)
        model = helper.make_model(part, opset_imports=self.step.opset_import, ir_version=self.step.ir_version)
        return bytes(model.SerializeToString())


def _add_branch(graph: onnx.GraphProto, means: str, word: str, branch: Branch) -> None:
    def name(part: str) -> str:
        return f"{_OWN}{word}/{part}"

    weights = {
        "hidden_weights": branch.hidden.swapaxes(1, 2).reshape(len(branch.hidden), -1, 1, 1),
        "hidden_bias": branch.hidden_bias,
        "output_weights": branch.output[None, :, None, None],
        "output_bias": np.array([branch.output_bias]),
    }
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name(part))
        for part, values in weights.items()
    )
    _append(graph, "Conv", [means, name("hidden_weights"), name("hidden_bias")], name("sum"))
    _append(graph, "Relu", [name("sum")], name("hidden"))
    _append(graph, "Conv", [name("hidden"), name("output_weights"), name("output_bias")], name("logit"))
    _append(graph, "Sigmoid", [name("logit")], name("score"))
    flatten = _producer(graph, "posteriors")
    scores = next((node for node in graph.node if node.name == _SCORES), None)
    if scores is None:
        scores = helper.make_node("Concat", [flatten.input[0]], [_SCORES], _SCORES, axis=1)
    else:
        graph.node.remove(scores)
    scores.input.append(name("score"))
    graph.node.remove(flatten)
    flatten.input[0] = _SCORES
    graph.node.extend([scores, flatten])
    _set_width(graph)


def _shared_means(graph: onnx.GraphProto, is_step: bool) -> str:
    """The value that all branches share, made if it is not there: (batch, N_SPANS * n_channels, 1, 1)."""
    if any(node.name == _MEANS for node in graph.node):
        return _MEANS
    n_channels = _channels(graph)
    shape = {"shape": [0, N_SPANS * n_channels, 1, 1]}
    spans = _recalled(graph, n_channels) if is_step else _all_spans(graph)
    _append(graph, "Reshape", [spans, *_integers(graph, shape)], _MEANS)
    return _MEANS


def _all_spans(graph: onnx.GraphProto) -> str:
    """In the window graph, the means over its last spans: (batch, N_SPANS, 1, n_channels)."""
    ends = {"from": [-N_SPANS * SPAN_STEPS], "to": [np.iinfo(np.int64).max], "axis": [2]}
    _append(graph, "Slice", [_tap(graph), *_integers(graph, ends)], f"{_OWN}newest")
    _append(graph, "AveragePool", [f"{_OWN}newest"], f"{_OWN}pooled", kernel_shape=_SPAN, strides=_SPAN)
    _append(graph, "Transpose", [f"{_OWN}pooled"], f"{_OWN}spans", perm=_CHANNELS_LAST)
    return f"{_OWN}spans"


def _recalled(graph: onnx.GraphProto, n_channels: int) -> str:
    """In the step graph, append the mean of the newest stride, which is a span, to those of the strides before it.

    These means are state: the graph gets one more input `past_N` and output `seen_N` (see `export.causal`).
    """
    n_before = len(graph.input) - 1
    past, seen = f"past_{n_before}", f"seen_{n_before}"
    for values, name, n_spans in ((graph.input, past, N_SPANS - 1), (graph.output, seen, N_SPANS)):
        shape = ("batch", n_spans, 1, n_channels)
        values.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    _append(graph, "AveragePool", [_tap(graph)], f"{_OWN}pooled", kernel_shape=_SPAN, strides=_SPAN)
    _append(graph, "Transpose", [f"{_OWN}pooled"], f"{_OWN}last", perm=_CHANNELS_LAST)
    graph.node.append(helper.make_node("Concat", [past, f"{_OWN}last"], [seen], f"{_OWN}seen", axis=1))
    return seen


def _channels(graph: onnx.GraphProto) -> int:
    """Channels of the value that the branches see: those of the convolution that made it."""
    weights = {one.name: one for one in graph.initializer}
    for node in _upstream(graph, _tap(graph)):
        if node.op_type == "Conv":
            return int(weights[node.input[1]].dims[0])
    raise LearnError(f"the network {_NO_PLACE}")


def _integers(graph: onnx.GraphProto, values: dict[str, list[int]]) -> list[str]:
    """Constants for the shared nodes; returns their names."""
    for name, numbers in values.items():
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), f"{_OWN}{name}"))
    return [f"{_OWN}{name}" for name in values]


def _append(graph: onnx.GraphProto, kind: str, inputs: list[str], output: str, **attributes: list[int]) -> None:
    """Add a node that is named like its output."""
    graph.node.append(helper.make_node(kind, inputs, [output], output, **attributes))


def _remove(graph: onnx.GraphProto, prefix: str) -> None:
    """Remove the nodes and constants with this prefix, and the past that they recall."""
    gone = [node for node in graph.node if node.name.startswith(prefix)]
    names = {name for node in gone for name in (*node.input, *node.output)}
    kept = {name for node in graph.node if node not in gone for name in (*node.input, *node.output)}
    for field in (graph.input, graph.output, graph.initializer):
        for one in [one for one in field if one.name in names - kept]:
            field.remove(one)
    for node in gone:
        graph.node.remove(node)


def _producer(graph: onnx.GraphProto, value: str) -> onnx.NodeProto:
    node = next((node for node in graph.node if value in node.output), None)
    if node is None:
        raise LearnError(f"the network {_NO_PLACE}")
    return node


def _upstream(graph: onnx.GraphProto, value: str) -> Iterator[onnx.NodeProto]:
    """The nodes that made a value, backwards along the newest steps."""
    made = {output: node for node in graph.node for output in node.output}
    while value in made:
        node = made[value]
        yield node
        value = node.input[-1] if node.op_type == "Concat" and not node.name else node.input[0]


def _own_labels(graph: onnx.GraphProto) -> str:
    """The value with the posteriors of the model's own labels, without learnt words."""
    value = _producer(graph, "posteriors").input[0]
    return str(_producer(graph, value).input[0] if value == _SCORES else value)


def _tap(graph: onnx.GraphProto) -> str:
    """The value that the branches see: the output of a block, `_BLOCKS_BACK` before the last."""
    blocks = [node.output[0] for node in _upstream(graph, _own_labels(graph)) if node.op_type == "Relu"]
    if len(blocks) <= _BLOCKS_BACK:
        raise LearnError(f"the network {_NO_PLACE}")
    return str(blocks[_BLOCKS_BACK])


def _sums(graph: onnx.GraphProto) -> onnx.TensorProto:
    """The weights that add words to labels, shape (n_labels, n_words, 1, 1)."""
    name = _producer(graph, _own_labels(graph)).input[1]
    return next(one for one in graph.initializer if one.name == name)


def _set_width(graph: onnx.GraphProto) -> None:
    """Declare how many columns the posteriors have."""
    n_labels = _sums(graph).dims[0]
    n_own = sum(node.name.startswith(_OWN) and node.name.endswith("/score") for node in graph.node)
    posteriors = next(one for one in graph.output if one.name == "posteriors")
    posteriors.type.tensor_type.shape.dim[1].dim_value = n_labels + n_own
