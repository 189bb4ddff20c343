"""Accuracy of a model on clips, and its confusion matrix.

Law: a report names its one split and counts every clip once. The pictures and the JSON come from
the same numbers.
"""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.clip import clip_posteriors, clip_views, clip_windows
from kwsd.errors import TrainingError
from train.files import write_json
from train.measure import plots
from train.measure.subject import KerasModel, Subject, digest, posteriors
from train.recordings.corpus import CLIP_SAMPLES, RATE_HZ, Corpus, noise_parts, read_clip
from train.recordings.features import Examples, held_out_examples, in_longer_noise

SNRS_DB = (20, 10, 5, 0)
_OF_RUN = ("hyperparameters", "git_revision")  # facts about the training, in reports as in cards


def evaluate(
    subject: Subject, corpus: Corpus, split: str, folder: Path, examples: Examples | None = None
) -> dict[str, Any]:
    """Measure a model on one split, balanced as the official test set is.

    Writes into `folder`: `SPLIT.json`, `SPLIT.png` (the confusion matrix) and `SPLIT.csv`
    (for each clip: file, first sample, gain, truth, label).

    Args:
        examples: features of the split's clips, if already computed.

    Raises:
        TrainingError: the model and the recordings have different labels.
    """
    card = subject.card
    check_labels(subject, corpus)
    examples = examples or held_out_examples(corpus, split, card.frontend)
    heard = labels_of(subject, examples)
    report = {
        **about(subject),
        "split": split,
        "files_digest": corpus.files_digest(),
        **score(examples.y, heard, card.labels),
        "accuracy_augmented": _augmented(subject, examples),
        "longer_clips": _in_longer_clips(subject, corpus, split, examples),
        "accuracy_at_snr_db": {str(snr_db): _in_noise(subject, corpus, split, snr_db) for snr_db in SNRS_DB},
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{split}.json", report)
    title = f"{card.name}, {split}: {report['accuracy']:.3f} of {report['n_clips']} clips"
    plots.confusion(report["confusion"], card.labels, title, folder / f"{split}.png")
    _write_labels(examples, heard, card.labels, corpus.root, folder / f"{split}.csv")
    return report


def labels_of(subject: Subject, examples: Examples) -> np.ndarray:
    """The labels that `kwsd label` would give. Shape: -> (n_clips,), index into the labels."""
    of_clips = posteriors(subject, examples.x)
    for n, clip in enumerate(examples.clips):
        if clip.n_samples > CLIP_SAMPLES:  # `kwsd label` listens to all of it, and knows no word's place
            of_clips[n] = _whole(read_clip(clip), subject)
    return np.argmax(subject.card.with_unknown_odds(of_clips), axis=1)


def _whole(samples: FloatArray, subject: Subject) -> FloatArray:
    """The posteriors of a clip of any length. Shape: (any,) -> (1, n_labels)."""
    card = subject.card
    return clip_posteriors([clip_windows(samples, RATE_HZ, card)], card, subject.posteriors)


def check_labels(subject: Subject, corpus: Corpus) -> None:
    """Raise TrainingError if the model and the recordings have different labels."""
    if tuple(subject.card.labels) != corpus.labels:
        raise TrainingError(
            f"{subject.path}: the model's labels are {', '.join(subject.card.labels)}, not those of the recordings"
        )


def about(subject: Subject) -> dict[str, Any]:
    """The model and its execution provider: the first part of every report."""
    if isinstance(subject, KerasModel):
        training = {key: subject.config[key] for key in _OF_RUN}
    else:
        training = subject.card.training
    return {
        "model": subject.card.name,
        "digest": digest(subject),
        "provider": subject.provider,
        "training": training,
    }


def score(truth: np.ndarray, heard: np.ndarray, labels: list[str]) -> dict[str, Any]:
    """Accuracy with its 95 % interval, recall of each class, and the confusion matrix.

    Shape: truth and heard (n_clips,), indices into labels. Rows of the matrix are the truth.
    """
    matrix = np.zeros((len(labels), len(labels)), int)
    np.add.at(matrix, (truth, heard), 1)
    n_clips, n_right = int(matrix.sum()), int(np.trace(matrix))
    recall = np.diag(matrix) / np.maximum(1, matrix.sum(axis=1))
    measured = matrix.sum(axis=1) > 0
    return {
        "n_clips": n_clips,
        "accuracy": n_right / n_clips,
        "interval_95": wilson(n_right, n_clips),
        "recall": {
            name: round(float(share), 4)
            for name, share in zip(np.array(labels)[measured].tolist(), recall[measured], strict=True)
        },
        "labels": labels,
        "confusion": matrix.tolist(),
    }


def wilson(n_right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Score interval of a share (E. B. Wilson, 1927), 95 % by default."""
    share, spread = n_right / n, z * np.sqrt(n_right * (n - n_right) / n + z * z / 4)
    middle = share * n + z * z / 2
    return float((middle - spread) / (n + z * z)), float((middle + spread) / (n + z * z))


def _augmented(subject: Subject, examples: Examples) -> float:
    """Accuracy of `kwsd label --augment`."""
    card = subject.card
    of_views = [
        clip_posteriors(clip_views(read_clip(clip), RATE_HZ, card), card, subject.posteriors) for clip in examples.clips
    ]
    mean = np.mean(of_views, axis=1)
    return float(np.mean(np.argmax(card.with_unknown_odds(mean), axis=1) == examples.y))


def _in_longer_clips(subject: Subject, corpus: Corpus, split: str, examples: Examples) -> dict[str, Any]:
    """Accuracy of `kwsd label` on the same clips, each at a random place in 1.2 to 4 s of noise."""
    card, random = subject.card, np.random.default_rng(0)
    noises = noise_parts(corpus, split)
    n_right = 0
    for clip, truth in zip(examples.clips, examples.y, strict=True):
        samples = in_longer_noise(read_clip(clip), noises, random)
        n_right += int(np.argmax(card.with_unknown_odds(_whole(samples, subject))) == truth)
    return {"accuracy": n_right / len(examples.y), "interval_95": wilson(n_right, len(examples.y))}


def _in_noise(subject: Subject, corpus: Corpus, split: str, snr_db: float) -> float:
    """Accuracy with noise from the split's part of the noise recordings added to every clip."""
    examples = held_out_examples(corpus, split, subject.card.frontend, snr_db)
    of_clips = subject.card.with_unknown_odds(posteriors(subject, examples.x))
    return float(np.mean(np.argmax(of_clips, axis=1) == examples.y))


def _write_labels(examples: Examples, heard: np.ndarray, labels: list[str], root: Path, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("file", "start", "gain", "truth", "label"))
        for clip, index in zip(examples.clips, heard, strict=True):
            name = clip.path.relative_to(root) if clip.path.is_relative_to(root) else clip.path.name
            writer.writerow((name, clip.start, f"{clip.gain:.6f}", clip.label, labels[index]))
