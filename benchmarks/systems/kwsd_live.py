"""kwsd: ten keywords, a decision every 100 ms, or every STRIDE_MS."""

import os

from measure import measure

STRIDE_MS = int(os.environ.get("STRIDE_MS", "100"))


def load():
    import numpy as np

    from kwsd.core.decision import thresholds_of
    from kwsd.core.model import load_model
    from kwsd.core.stream_batch import StreamBatch

    model = load_model(device="cpu", stride_frames=STRIDE_MS // 10)
    batch = StreamBatch(model)
    row = batch.join(thresholds_of(model.card))

    def hear(chunk):
        samples = np.frombuffer(chunk, np.int16).astype(np.float32) / 32768
        return list(batch.process({row: samples}))

    return hear


measure(load, 16 * STRIDE_MS)
