"""Keras to ONNX, for a network of whole windows; `export.causal` writes the others.

The law of this file: tf2onnx logs what it cannot convert and writes an invalid graph
without an exception, so nothing that comes from here is trusted before it has been loaded
and compared (`export.parity`).
"""

import keras
import onnx
import tensorflow as tf
import tf2onnx

from kwsd.errors import ExportError

OPSET = 17
"""tf2onnx 1.17 refuses 19 and above; ONNX Runtime reads all older ones."""


def convert(model: keras.Model) -> onnx.ModelProto:
    """The inference graph, with inputs `windows`, outputs `posteriors` and a free `batch`.

    Source: `from_function` also takes models that `from_keras` fails on (tf2onnx 1.17 with
    Keras 3).

    Raises:
        ExportError: it cannot be converted.
    """
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="windows")]

    @tf.function(input_signature=signature)
    def infer(windows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"posteriors": model(windows, training=False)}

    try:
        graph, _ = tf2onnx.convert.from_function(infer, signature, opset=OPSET)
    except Exception as error:  # it and TensorFlow raise many kinds
        reason = " ".join(str(error).split())
        raise ExportError(f"tf2onnx cannot convert this network ({reason[:200]})") from error
    for value in (*graph.graph.input, *graph.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    return graph
