"""Converts Keras to ONNX for networks of whole windows; `export.causal` writes the others.

Law: no graph from this file is trusted before it has been loaded and compared (`export.parity`).
When tf2onnx cannot convert a layer, it only logs that, and writes an invalid graph without an exception.
"""

import keras
import onnx
import tensorflow as tf
import tf2onnx

from kwsd.errors import ExportError

OPSET = 17
"""tf2onnx 1.17 refuses 19 and above; ONNX Runtime reads all older ones."""


def convert(model: keras.Model) -> onnx.ModelProto:
    """Make the inference graph, with input `windows`, output `posteriors` and a free dimension `batch`.

    `from_function` also converts models on which `from_keras` fails (tf2onnx 1.17 with Keras 3).

    Raises:
        ExportError: the model cannot be converted.
    """
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="windows")]

    @tf.function(input_signature=signature)
    def infer(windows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"posteriors": model(windows, training=False)}

    try:
        graph, _ = tf2onnx.convert.from_function(infer, signature, opset=OPSET)
    except Exception as error:  # tf2onnx and TensorFlow raise many types
        reason = " ".join(str(error).split())
        raise ExportError(f"tf2onnx cannot convert this network ({reason[:200]})") from error
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return graph
