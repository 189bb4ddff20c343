"""Checks that the exported file computes the same as the Keras model.

Law: the check goes from WAV to posterior, loads the file as a user will, and covers batch 1, odd
batches, whole windows and single steps.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras
import numpy as np
import soundfile

from kwsd.core.frontend import clip_features
from kwsd.core.model import Model
from kwsd.core.state import step_through
from kwsd.errors import ExportError
from kwsd.files import wavs_in
from kwsd.sources.recording import read_recording

TOLERANCE = 1e-4
"""Allows for float32 sums in another order; typical differences are 1e-7."""

_BATCHES = (1, 3, 7, 53)
_N_CLIPS = 64


def check_parity(keras_model: keras.Model, model: Model, data: Path | None) -> float:
    """Compare both models on clips below `data`, or on synthetic clips.

    Returns:
        the largest difference of a posterior.

    Raises:
        ExportError: the difference is above the tolerance.
    """
    with _clips(data) as paths:
        card = model.card
        windows = np.stack([clip_features(*read_recording(path), card.window_frames, card.frontend) for path in paths])
    want = keras_model.predict(windows, verbose=0)
    differences = []
    for size in _BATCHES:
        batches = [windows[start : start + size] for start in range(0, len(windows), size)]
        differences.append(np.concatenate([model.posteriors(batch) for batch in batches]) - want)
    differences.append(step_through(model.new_state(len(windows)), windows, model.card.stride_frames) - want)
    worst = float(np.max(np.abs(differences)))
    if not worst <= TOLERANCE:  # a NaN fails too
        raise ExportError(
            f"Keras and ONNX Runtime differ by {worst:.2g}, more than the allowed {TOLERANCE:g}; nothing was written"
        )
    return worst


@contextmanager
def _clips(data: Path | None) -> Iterator[list[Path]]:
    """Paths of some clips: evenly chosen from those below a folder, or synthetic."""
    if data:
        paths = wavs_in(data, also_below=True)
        if not paths:
            raise ExportError(f"{data}: no WAV files below it for the comparison")
        yield paths[:: max(1, len(paths) // _N_CLIPS)][:_N_CLIPS]
        return
    with tempfile.TemporaryDirectory() as folder:
        yield [_synthetic(Path(folder) / f"{i}.wav", i) for i in range(_N_CLIPS)]


def _synthetic(path: Path, seed: int) -> Path:
    """Write about a second of a chirp and noise, at a common sample rate."""
    random = np.random.default_rng(seed)
    rate_hz = (8000, 16000, 44100, 48000)[seed % 4]
    seconds = np.arange(int(rate_hz * random.uniform(0.4, 1.1))) / rate_hz
    chirp = np.sin(2 * np.pi * (random.uniform(100, 900) + random.uniform(-400, 800) * seconds) * seconds)
    burst = np.exp(-(((seconds - 0.5) / random.uniform(0.05, 0.4)) ** 2))
    noise = random.standard_normal(len(seconds)) * 10 ** random.uniform(-4, -1)
    soundfile.write(path, np.clip(0.5 * burst * chirp + noise, -1, 1), rate_hz, subtype="PCM_16")
    return path
