"""openWakeWord in ONNX Runtime: all words in its package, or N_WORDS of them, with a decision every 80 ms."""

import os
from pathlib import Path

from measure import measure

N_WORDS = int(os.environ.get("N_WORDS", "6"))


def load():
    import numpy as np
    import openwakeword
    from openwakeword.model import Model

    folder = Path(openwakeword.__file__).parent / "resources" / "models"
    words = sorted(path for path in folder.glob("*_v*.onnx") if "vad" not in path.name)[:N_WORDS]
    if len(words) < N_WORDS:
        raise SystemExit(f"{folder}: has only {len(words)} words")
    model = Model(wakeword_models=[str(path) for path in words], inference_framework="onnx")
    return lambda chunk: model.predict(np.frombuffer(chunk, np.int16))


measure(load, 1280)
