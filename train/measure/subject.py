"""The subject of a measurement: a run's Keras model or an exported file, with the same interface.

Law: a subject has a card and gives posteriors, as `kwsd.core.model.Model` does, so the shipping
Spotter runs either.
"""

import hashlib
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.card import DecisionParams, GoldenCheck, ModelCard
from kwsd.core.frontend import PARAMETER_SETS
from kwsd.core.model import Model, load_model
from kwsd.core.state import State, WindowState
from kwsd.errors import TrainingError
from kwsd.learn.model_file import learnt_words
from kwsd.typed import ProblemsError, build
from train.files import read_json
from train.recordings.corpus import SILENCE, UNKNOWN

STRIDE_SECONDS = 0.1


class KerasModel:
    """A run's model with the interface of `kwsd.core.model.Model`.

    Attributes:
        card: what the run says about itself, with the decision that was chosen for it, if any.
        provider: the Keras backend.
        config: the run's; path: the model's file.
    """

    def __init__(self, run: Path) -> None:
        self.config, self.keras = load_run(run)
        self.provider = f"keras on {keras.backend.backend()}"
        self.path = run / "model.keras"
        params = PARAMETER_SETS.get(self.config["frontend"])
        if params is None or params.digest != self.config["frontend_digest"]:
            raise TrainingError(f"{run}: was trained with another front end; train it again with this kwsd")
        labels = self.config["labels"]
        path = run / "decision.json"
        chosen = read_json(path) if path.is_file() else {}
        self.card = ModelCard(
            name=self.config["architecture"],
            labels=labels,
            silence=SILENCE,
            unknown=UNKNOWN,
            frontend=params,
            window_frames=self.config["window_frames"],
            stride_frames=round(STRIDE_SECONDS * params.sample_rate_hz / params.hop_samples),
            decision=_decision(chosen["decision"], path) if chosen else undecided(labels[:-2]),
            golden=GoldenCheck(0, []),
            unknown_odds=chosen.get("unknown_odds", 1.0),
        )

    def posteriors(self, windows: FloatArray) -> FloatArray:
        """Shape: (n_windows, window_frames, n_bands) -> (n_windows, n_labels), float32."""
        of_windows: FloatArray = self.keras.predict_on_batch(windows)
        return of_windows

    def new_state(self, n_rows: int) -> State:
        """As `Model.new_state`."""
        return WindowState(self.card, self.posteriors, n_rows)


Subject = KerasModel | Model


def posteriors(subject: Subject, windows: FloatArray) -> FloatArray:
    """Posteriors of many windows, in batches that fit in memory. Shape: as `Model.posteriors`."""
    return np.concatenate([subject.posteriors(windows[at : at + 256]) for at in range(0, len(windows), 256)])


def load_subject(path: Path) -> Subject:
    """Load a run folder or an ONNX file.

    Raises:
        TrainingError, ModelError: it is neither, or damaged, or has words of `kwsd learn`.
    """
    subject = KerasModel(path) if path.is_dir() else load_model(path, "cpu")
    if learnt := learnt_words(subject.card):
        raise TrainingError(
            f"{path}: has words of `kwsd learn` ({', '.join(learnt)}), which the recordings lack; "
            "`kwsd learn --forget` removes them"
        )
    return subject


def digest(subject: Subject) -> str:
    """The sha256 of the model's file, in hex."""
    return hashlib.sha256(subject.path.read_bytes()).hexdigest()


def load_run(run: Path) -> tuple[dict[str, Any], keras.Model]:
    """The configuration and the model of a finished training.

    Raises:
        TrainingError: the folder holds no trained model, or a damaged one.
    """
    if not (run / "model.keras").is_file() or not (run / "config.json").is_file():
        raise TrainingError(f"{run}: no trained model here; make one with `python -m train fit`")
    config: dict[str, Any] = read_json(run / "config.json")
    try:
        return config, keras.models.load_model(run / "model.keras", compile=False)
    except (ValueError, OSError) as error:
        raise TrainingError(f"{run / 'model.keras'}: damaged ({str(error).splitlines()[0]})") from None


def _decision(values: dict[str, Any], path: Path) -> DecisionParams:
    try:
        return build(DecisionParams, values)
    except ProblemsError:
        raise TrainingError(
            f"{path}: was written by another version of kwsd; delete it and run the same fit again"
        ) from None


def undecided(keywords: list[str]) -> DecisionParams:
    """The decision before one is chosen. It averages three windows: part of a word rarely scores high in all three."""
    return DecisionParams(smoothing_windows=3, refractory_seconds=1.0, thresholds=dict.fromkeys(keywords, 0.9))
