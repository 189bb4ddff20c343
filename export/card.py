"""Makes the model card of a run (see `kwsd.core.card`) from its measurements."""

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from export.convert import OPSET
from kwsd.core.card import GoldenCheck, ModelCard, golden_windows
from kwsd.errors import ExportError
from train.architectures import ARCHITECTURES
from train.files import read_json
from train.measure.subject import KerasModel

_GOLDEN_SEED, _GOLDEN_WINDOWS = 20171116, 8

LICENCE = "Apache-2.0; trained on the recordings that the attribution names, under their licences"
ATTRIBUTION = "Speech Commands by Pete Warden, Google (CC BY 4.0)"


def make_card(run: Path, subject: KerasModel, attribution: str, note: str) -> ModelCard:
    """Make the card.

    Args:
        run, subject: a finished training, and its model.
        attribution: of the recordings.
        note: further text for users about this training.

    Raises:
        ExportError: the training was not finished.
    """
    measured = {name: _measured(run / f"{name}.json") for name in ("validation", "decision")}
    card = subject.card
    windows = golden_windows(_GOLDEN_SEED, _GOLDEN_WINDOWS, card.window_frames, card.frontend)
    posteriors = subject.posteriors(windows)
    kept = ("n_clips", "accuracy", "interval_95", "recall", "accuracy_at_snr_db", "files_digest")
    return replace(
        card,
        golden=GoldenCheck(_GOLDEN_SEED, posteriors.astype(float).tolist()),
        training={**_training(subject.config, card.name), **_pace(run / "history.json"), "note": note},
        results={
            "validation": {key: measured["validation"][key] for key in kept},
            "missed": measured["decision"]["missed"],
            "missed_on": {key: measured["decision"][key] for key in ("streams", "seed", "hours")},
        },
        licence=LICENCE,
        attribution=attribution,
    )


def _measured(path: Path) -> Any:
    if not path.is_file():
        raise ExportError(f"{path}: missing; repeat the command that started this training")
    return read_json(path)


def _pace(path: Path) -> dict[str, float]:
    """The duration of the training, and its median number of windows a second."""
    epochs = _measured(path)
    return {
        "minutes": round(sum(epoch["seconds"] for epoch in epochs) / 60, 1),
        "windows_per_second": round(float(np.median([epoch["windows_per_second"] for epoch in epochs]))),
    }


def _training(config: dict[str, Any], architecture: str) -> dict[str, Any]:
    kept = ("hyperparameters", "files_digest", "n_clips", "git_revision")
    converters = ("onnx",) if ARCHITECTURES[architecture].is_causal else ("tf2onnx", "onnx")
    exporters = {name: metadata.version(name) for name in converters} | {"opset": OPSET}
    return {
        "data": "Speech Commands layout, split by the speakers in file names",
        **{key: config[key] for key in kept},
        "versions": config["versions"] | exporters,
    }
