"""The model card of a run: what `kwsd.card` describes, filled in from what was measured."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import keras

from export.convert import OPSET
from kwsd.card import DecisionParams, GoldenCheck, ModelCard, golden_windows
from kwsd.errors import ExportError
from kwsd.frontend import PARAMETER_SETS
from train.data import SILENCE, UNKNOWN

_GOLDEN_SEED, _GOLDEN_WINDOWS = 20171116, 8
_STRIDE_SECONDS = 0.1

LICENCE = "Apache-2.0; trained on recordings under CC BY 4.0, see attribution"
ATTRIBUTION = "Speech Commands by Pete Warden, Google (CC BY 4.0)"


def make_card(run: Path, config: dict[str, Any], model: keras.Model, attribution: str, note: str) -> ModelCard:
    """Fill in a card.

    Args:
        attribution: of the recordings.
        note: what else a user should know about this training.

    Raises:
        ExportError: the run was never evaluated on its validation split.
    """
    path = run / "validation.json"
    if not path.is_file():
        raise ExportError(f"{path}: missing; make it with `python -m train evaluate {run} --split validation`")
    results = json.loads(path.read_text())
    params = PARAMETER_SETS[config["frontend"]]
    windows = golden_windows(_GOLDEN_SEED, _GOLDEN_WINDOWS, config["window_frames"], params)
    posteriors = model.predict(windows, verbose=0)
    return ModelCard(
        name=config["architecture"],
        labels=config["labels"],
        silence=SILENCE,
        unknown=UNKNOWN,
        frontend=params,
        window_frames=config["window_frames"],
        stride_frames=round(_STRIDE_SECONDS * params.sample_rate_hz / params.hop_samples),
        decision=DecisionParams(**results["decision"]),
        golden=GoldenCheck(_GOLDEN_SEED, posteriors.astype(float).tolist()),
        training={**_training(config), "note": note},
        results={
            "validation": {
                key: results[key] for key in ("n_clips", "accuracy", "interval_95", "recall", "files_digest")
            }
        },
        licence=LICENCE,
        attribution=attribution,
    )


def _training(config: dict[str, Any]) -> dict[str, Any]:
    kept = ("hyperparameters", "files_digest", "n_clips", "git_revision")
    exporters = {name: metadata.version(name) for name in ("tf2onnx", "onnx")} | {"opset": OPSET}
    return {
        "data": "Speech Commands layout, split by speaker",
        **{key: config[key] for key in kept},
        "versions": config["versions"] | exporters,
    }
