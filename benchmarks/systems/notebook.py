"""The notebook's way, live. For each decision, SciPy resamples and transforms the whole last second; then the CNN runs.

ENGINE is onnx (ONNX Runtime, one thread) or keras (`predict`); STRIDE_MS is the time between decisions.
"""

import os
import sys

from measure import measure

STRIDE_MS = int(os.environ.get("STRIDE_MS", "100"))
ENGINE = os.environ.get("ENGINE", "onnx")


def load():
    import numpy as np
    from scipy import signal

    infer = _onnx() if ENGINE == "onnx" else _keras()
    last = np.zeros(16000, np.float32)

    def hear(chunk):
        nonlocal last
        last = np.concatenate([last, np.frombuffer(chunk, np.int16).astype(np.float32) / 32768])[-16000:]
        resampled = signal.resample(last, 8000)
        _, _, power = signal.spectrogram(resampled, 8000, "hann", 160, 80, detrend=False)
        return infer(np.log(power.T.astype(np.float32) + 1e-10)[None])

    return hear


def _onnx():
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(sys.argv[2], options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda window: session.run(None, {name: window})


def _keras():
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from train.architectures import light_cnn

    model = light_cnn((99, 81), 12)
    return lambda window: model.predict(window, verbose=0)


if __name__ == "__main__":
    measure(load, 16 * STRIDE_MS)
