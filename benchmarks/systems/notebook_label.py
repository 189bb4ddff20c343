"""The notebook's way to label a folder: SciPy computes the features of every clip, then one Keras `predict` labels all.

python notebook_label.py FOLDER ARCHITECTURE
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from scipy import signal
from scipy.io import wavfile

from train.architectures import ARCHITECTURES


def features(path: Path) -> np.ndarray:
    rate_hz, samples = wavfile.read(path)
    samples = np.pad(samples, (0, max(0, rate_hz - len(samples))))[:rate_hz] / 32768
    resampled = signal.resample(samples, 8000)
    _, _, power = signal.spectrogram(resampled, 8000, "hann", 160, 80, detrend=False)
    return np.log(power.T.astype(np.float32) + 1e-10)


model = ARCHITECTURES[sys.argv[2]].build((99, 81), 12)
paths = sorted(Path(sys.argv[1]).glob("*.wav"))
model.predict(features(paths[0])[None], verbose=0)
began = time.perf_counter()
model.predict(np.stack([features(path) for path in paths]), batch_size=256, verbose=0)
seconds = time.perf_counter() - began
print(json.dumps({"files_per_second": len(paths) / seconds, "seconds": seconds}))
