"""How often is a model right, and what does it take for what?

The law of this file: one split, stated; every clip counted once; the pictures and the JSON
come from the same numbers.
"""

import csv
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kwsd.errors import TrainingError
from kwsd.frontend import PARAMETER_SETS
from train import plots
from train.data import SILENCE, UNKNOWN, Corpus
from train.features import Examples, held_out_examples


def evaluate(run: Path, corpus: Corpus, split: str, cache: Path) -> dict[str, Any]:
    """Measure a run's model on one split, balanced as the official test set is.

    Writes beside the model `SPLIT.json`, `SPLIT.png` (the confusion matrix) and `SPLIT.csv`
    (for each clip: file, first sample, gain, truth, label).

    Raises:
        TrainingError: no model in the run folder, or other labels than the recordings have.
    """
    config, model = load_run(run)
    if tuple(config["labels"]) != corpus.labels:
        raise TrainingError(f"{run}: the model's labels are {', '.join(config['labels'])}, other than asked for")
    examples = held_out_examples(corpus, split, PARAMETER_SETS[config["frontend"]])
    posteriors = model.predict(examples.x, batch_size=256, verbose=0)
    heard = np.argmax(posteriors, axis=1)
    report = {"split": split, "files_digest": corpus.files_digest(), **score(examples.y, heard, config["labels"])}
    if split == "validation":
        report["decision"] = choose_decision(examples.y, posteriors, config["labels"])
    (run / f"{split}.json").write_text(json.dumps(report, indent=2) + "\n")
    title = f"{config['architecture']}, {split}: {report['accuracy']:.3f} of {report['n_clips']} clips"
    plots.confusion(report["confusion"], config["labels"], title, run / f"{split}.png")
    _write_labels(examples, heard, config["labels"], corpus.root, run / f"{split}.csv")
    return report


def load_run(run: Path) -> tuple[dict[str, Any], keras.Model]:
    """The configuration and the best model of a finished, or at least begun, training.

    Raises:
        TrainingError: there is none.
    """
    config = read_config(run)
    try:
        return config, keras.models.load_model(run / "model.keras", compile=False)
    except (ValueError, OSError) as error:
        raise TrainingError(f"{run / 'model.keras'}: damaged ({str(error).splitlines()[0]})") from None


def read_config(run: Path) -> dict[str, Any]:
    """The configuration of a run that has a model.

    Raises:
        TrainingError: there is none.
    """
    if not (run / "model.keras").is_file() or not (run / "config.json").is_file():
        raise TrainingError(f"{run}: no trained model here; make one with `python -m train fit`")
    try:
        config: dict[str, Any] = json.loads((run / "config.json").read_text())
    except ValueError as error:
        raise TrainingError(f"{run / 'config.json'}: damaged ({error})") from None
    return config


def score(truth: np.ndarray, heard: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Accuracy with its 95 % interval, recall of each class, and the confusion matrix.

    Shape: truth and heard (n_clips,), indices into labels. Rows of the matrix are the truth.
    """
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, (truth, heard), 1)
    n_clips, n_right = int(matrix.sum()), int(np.trace(matrix))
    recall = np.diag(matrix) / np.maximum(1, matrix.sum(axis=1))
    return {
        "n_clips": n_clips,
        "accuracy": n_right / n_clips,
        "interval_95": wilson(n_right, n_clips),
        "recall": dict(zip(labels, recall.round(4).tolist(), strict=True)),
        "labels": labels,
        "confusion": matrix.tolist(),
    }


def choose_decision(truth: np.ndarray, posteriors: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Thresholds from validation clips: what at most 1 % of everything else reaches.

    A stream is harder than clips, so no threshold is below 0.7, and a score is the mean of
    three windows (300 ms): a word fills several, half a word only one or two.
    """
    thresholds = {}
    for index, label in enumerate(labels):
        if label not in (SILENCE, UNKNOWN):
            others = posteriors[truth != index, index]
            thresholds[label] = round(float(np.clip(np.quantile(others, 0.99), 0.7, 0.95)), 3)
    return {"smoothing_windows": 3, "refractory_seconds": 1.0, "thresholds": thresholds}


def wilson(n_right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a share (E. B. Wilson, 1927), 95 % by default."""
    share, spread = n_right / n, z * np.sqrt(n_right * (n - n_right) / n + z * z / 4)
    middle = share * n + z * z / 2
    return float((middle - spread) / (n + z * z)), float((middle + spread) / (n + z * z))


def _write_labels(examples: Examples, heard: np.ndarray, labels: list[str], root: Path, path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "start", "gain", "truth", "label"))
        for clip, index in zip(examples.clips, heard, strict=True):
            name = clip.path.relative_to(root) if clip.path.is_relative_to(root) else clip.path.name
            writer.writerow((name, clip.start, f"{clip.gain:.6f}", clip.label, labels[index]))
