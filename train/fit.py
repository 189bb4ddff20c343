"""Training, read from top to bottom.

The law of this file: what a run folder holds is enough to repeat it, and an interrupted run
goes on where its last whole epoch ended, with the numbers that it would have had.

A training has stages. Each begins with the weights of the one before and the whole learning
rate, which takes it elsewhere (restarts: I. Loshchilov, F. Hutter, 2017), so the networks at
their ends err in different windows, and know more together than each of them (snapshot
ensembles: G. Huang et al., 2017). In the last stage the network learns what those before it
say together, in place of the truth (distillation: G. Hinton et al., 2015).

    RUN/config.json      architecture, front end, labels, hyper-parameters, digests, versions
    RUN/checkpoint-N.keras  the model after N epochs, with its optimizer; the last one of each stage is kept
    RUN/history.json     loss and accuracy for each epoch
    RUN/history.png      the same as a picture
    RUN/model.keras      the last epoch's, when all are done
    RUN/validation.*     its evaluation on validation clips (`train.measure.clips`)
    RUN/decision.json    the decision chosen on validation streams (`train.measure.decide`)
"""

import fcntl
import math
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from kwsd import __version__
from kwsd.audio import FloatArray
from kwsd.core.frontend import FrontendParams
from kwsd.core.state import IntArray
from kwsd.errors import TrainingError
from train.architectures import ARCHITECTURES, with_labels
from train.files import read_json, write_json
from train.hyperparameters import Hyperparameters
from train.measure import plots
from train.measure.clips import evaluate
from train.measure.decide import choose
from train.measure.subject import KerasModel
from train.recordings.corpus import Corpus
from train.recordings.features import Examples, held_out_examples
from train.recordings.material import gather
from train.recordings.windows import Epochs, Recipe, window_frames


@keras.saving.register_keras_serializable("kwsd")
class MarginLoss(keras.losses.Loss):
    """Cross-entropy of posteriors, in which the right label must win by a margin of logits.

    Shape: words (..., ), posteriors (..., n_words) -> (...,). Taking `margin` off the right
    label's logit (CosFace, H. Wang et al., 2018, on plain logits) turns its posterior p into
    p / (p + (1 - p) exp(margin)). A share of `smoothing` goes to all labels alike (C. Szegedy
    et al., 2016).
    """

    def __init__(self, margin: float, smoothing: float = 0.0, name: str = "margin_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.margin, self.smoothing = margin, smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        right = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
        p = keras.ops.clip(keras.ops.sum(y_pred * right, axis=-1), 1e-7, 1.0)
        others = keras.ops.maximum(1 - p, 1e-7)
        loss = keras.ops.log(p + others * math.exp(self.margin)) - keras.ops.log(p)
        alike = -keras.ops.mean(keras.ops.log(keras.ops.clip(y_pred, 1e-7, 1.0)), axis=-1)
        return (1 - self.smoothing) * loss + self.smoothing * alike

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("kwsd")
class DecayingMuon(keras.optimizers.Muon):
    """Muon for the matrices, AdamW for all else; only the weights of convolutions and dense layers decay.

    Source: K. Jordan et al., 2024, with updates as large as Adam's (J. Liu et al., 2025). The
    layer of the words is left to AdamW, as they advise. `exclude_from_weight_decay` is not
    part of an optimizer's configuration: a loaded one would decay all (Keras 3.15).
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])


def fit(corpus: Corpus, architecture: str, hyper: Hyperparameters, run: Path, cache: Path) -> None:
    """Train a model, or go on with an interrupted training.

    Raises:
        TrainingError: the run folder holds another training, or is in use.
    """
    with _alone_in(run):
        _fit(corpus, architecture, hyper, run, cache)


@contextmanager
def _alone_in(run: Path) -> Iterator[None]:
    """Nobody else trains into this folder meanwhile; the system lets go of it when the process ends."""
    run.mkdir(parents=True, exist_ok=True)
    folder = os.open(run, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{run}: another fit is training into it; give -o another folder") from None
        yield
    finally:
        os.close(folder)


def _fit(corpus: Corpus, architecture: str, hyper: Hyperparameters, run: Path, cache: Path) -> None:
    params = ARCHITECTURES[architecture].frontend
    config = _configuration(corpus, architecture, params, hyper)
    _claim(run, config)
    history: list[dict[str, float]] = read_json(run / "history.json") if (run / "history.json").exists() else []
    held_out = gather(corpus, "validation", cache)  # if streams cannot be made, that is said before the training
    if not (run / "model.keras").exists():
        validation = held_out_examples(corpus, "validation", params)
        recipe = _recipe(corpus, architecture, hyper, cache)
        stages = stages_of(hyper)
        windows = _build(architecture, recipe, recipe.window_frames)
        with Epochs(recipe, hyper.n_epochs) as epochs:
            for stage in stages:
                if len(history) >= stage.end:
                    continue
                model = _model(run, architecture, recipe, stage, len(history))
                teachers = [_load(run, before.end) for before in stages[:-1]] if stage.distils else []
                for epoch in range(len(history), stage.end):
                    losses = _epoch(model, teachers, epochs, recipe, epoch)
                    windows.set_weights(model.get_weights())
                    history.append(losses | _validate(windows, validation))
                    _keep(model, run, history, stage)
        windows.set_weights(_load(run, hyper.n_epochs).get_weights())
        _save(with_labels(windows, len(corpus.labels)), run / "model.keras")
    plots.history(history, run / "history.png")
    if not (run / "decision.json").exists():
        choose(KerasModel(run), corpus, held_out, run)
    report = evaluate(KerasModel(run), corpus, "validation", run)
    print(f"{run}: validation accuracy {report['accuracy']:.4f} after {len(history)} epochs")


def _recipe(corpus: Corpus, architecture: str, hyper: Hyperparameters, cache: Path) -> Recipe:
    chosen = ARCHITECTURES[architecture]
    material = gather(corpus, "training", cache)
    frames = window_frames(chosen.frontend)
    return Recipe(material, chosen.frontend, frames, chosen.n_windows, chosen.step_frames, hyper)


@dataclass(frozen=True, slots=True)
class Stage:
    """Epochs from `begin` to before `end`; `distils` where earlier networks say what is right."""

    begin: int
    end: int
    distils: bool


def stages_of(hyper: Hyperparameters) -> list[Stage]:
    """The first one, and its restarts; the last of these distils."""
    ends = [hyper.epochs + n * hyper.restart_epochs for n in range(hyper.restarts + 1)]
    begins = [0, *ends]
    return [Stage(begin, end, distils=begin > 0 and end == ends[-1]) for begin, end in zip(begins, ends, strict=False)]


def _epoch(
    model: keras.Model, teachers: list[keras.Model], epochs: Epochs, recipe: Recipe, epoch: int
) -> dict[str, float]:
    """Everything random comes from the seed and the epoch's number, so resuming repeats it.

    Batches are given by hand: `fit` has tf.data bring them, which now and then does nothing for half
    a minute, until its tuner looks again (TensorFlow 2.21).
    """
    began = time.monotonic()
    hyper = recipe.hyper
    _seed_dropout(model, hyper.seed, epoch)
    stretches = epochs.epoch(epoch)
    waited = time.monotonic() - began
    order = np.random.default_rng((hyper.seed, epoch)).permutation(len(stretches.x))
    name = f"epoch {epoch + 1} of {hyper.n_epochs}"
    model.reset_metrics()
    bar = tqdm(_batches(order, _batch_size(recipe)), name, unit=" batches", disable=None, leave=False)
    for batch in bar:
        x, right, weights = stretches.x[batch].astype(np.float32), stretches.words[batch], stretches.weights[batch]
        if teachers:  # they know an answer where the truth is nobody's, too
            right, weights = _together(teachers, x), np.maximum(weights, 1)
        values = model.train_on_batch(x, right, sample_weight=weights, return_dict=True)
        bar.set_postfix(values, refresh=False)
    values = {what: float(value) for what, value in values.items()}
    print(f"{name}: {', '.join(f'{what} {value:.4f}' for what, value in values.items())}", flush=True)
    n_windows = stretches.weights.size if teachers else np.count_nonzero(stretches.weights)
    seconds = time.monotonic() - began
    windows_per_second = round(n_windows / seconds)
    return values | {"windows_per_second": windows_per_second, "seconds": round(seconds, 1), "waited": round(waited, 1)}


def _batches(order: IntArray, n: int) -> list[IntArray]:
    return [order[at : at + n] for at in range(0, len(order), n)]


def _together(teachers: list[keras.Model], x: FloatArray) -> FloatArray:
    """The mean of what they say. Shape: stretches -> (n, n_windows, n_words)."""
    total: FloatArray = sum(teacher.predict_on_batch(x) for teacher in teachers)
    return total / len(teachers)


def _validate(windows: keras.Model, clips: Examples) -> dict[str, float]:
    batches = _batches(np.arange(len(clips.y)), 512)
    posteriors = np.concatenate([windows.predict_on_batch(clips.x[batch])[:, 0] for batch in batches])
    heard = np.minimum(np.argmax(posteriors, axis=1), len(clips.labels) - 1)
    return {"val_accuracy": float(np.mean(heard == clips.y))}


def _batch_size(recipe: Recipe) -> int:
    """Stretches for a step."""
    seconds = recipe.stretch_frames * recipe.params.hop_samples / recipe.params.sample_rate_hz
    return max(1, round(recipe.hyper.batch_seconds / seconds))


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Keras 3.15 saves the state of a dropout's generator and does not load it again."""
    for index, layer in enumerate(model.layers):
        if generator := getattr(layer, "seed_generator", None):
            generator.state.assign(np.array([seed + index, epoch], generator.state.dtype))


def _keep(model: keras.Model, run: Path, history: list[dict[str, float]], stage: Stage) -> None:
    """Put an epoch on disk. It counts once history.json, which is written last, has it."""
    n_done = len(history)
    _save(model, _checkpoint(run, n_done))
    write_json(run / "history.json", history)
    if n_done - 1 > stage.begin:
        _checkpoint(run, n_done - 1).unlink(missing_ok=True)


def _checkpoint(run: Path, n_epochs: int) -> Path:
    return run / f"checkpoint-{n_epochs}.keras"


def _load(run: Path, n_epochs: int) -> keras.Model:
    path = _checkpoint(run, n_epochs)
    try:
        return keras.models.load_model(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{path}: missing or damaged ({reason}); give -o another folder to begin anew") from None


def _model(run: Path, architecture: str, recipe: Recipe, stage: Stage, n_done: int) -> keras.Model:
    """Of stretches, as it was after `n_done` epochs; at a stage's begin with a new optimizer."""
    hyper = recipe.hyper
    keras.utils.set_random_seed(hyper.seed)
    if n_done > stage.begin:
        return _load(run, n_done)
    model = _build(architecture, recipe, recipe.stretch_frames)
    if n_done:
        model.set_weights(_load(run, n_done).get_weights())
    n_steps = -(-recipe.n_stretches // _batch_size(recipe)) * (stage.end - stage.begin)
    schedule = keras.optimizers.schedules.CosineDecay(hyper.learning_rate, n_steps)
    decay = hyper.weight_decay
    optimizer = DecayingMuon(schedule, weight_decay=decay, adam_weight_decay=decay, exclude_layers=["words"])
    loss = "categorical_crossentropy" if stage.distils else MarginLoss(hyper.margin, hyper.label_smoothing)
    # XLA's convolutions on a CPU are five times slower than oneDNN's: no jit_compile.
    model.compile(optimizer, loss=loss, weighted_metrics=["accuracy"], jit_compile=False)
    return model


def _build(architecture: str, recipe: Recipe, n_frames: int) -> keras.Model:
    """A new network that takes so many frames at once."""
    return ARCHITECTURES[architecture].build((n_frames, recipe.params.n_bands), len(recipe.material.words))


def _configuration(corpus: Corpus, architecture: str, params: FrontendParams, hyper: Hyperparameters) -> dict[str, Any]:
    packages = ("keras", keras.backend.backend(), "numpy", "soxr")
    return {
        "architecture": architecture,
        "frontend": params.name,
        "frontend_digest": params.digest,
        "window_frames": window_frames(params),
        "labels": list(corpus.labels),
        "hyperparameters": hyper.to_dict(),
        "files_digest": corpus.files_digest(),
        "n_clips": {split: len(clips) for split, clips in corpus.clips.items()},
        "versions": {"kwsd": __version__} | {name: _version(name) for name in packages},
        "git_revision": _git_revision(),
    }


def _claim(run: Path, config: dict[str, Any]) -> None:
    """Write the configuration, or make sure that the same training was begun here."""
    path = run / "config.json"
    ignored = ("versions", "git_revision")  # an update of a package need not end a training
    if path.exists():
        begun = read_json(path)
        if differing := [key for key in config if key not in ignored and begun.get(key) != config[key]]:
            raise TrainingError(
                f"{run}: holds another training (different {', '.join(differing)}); give -o another folder"
            )
        return
    write_json(path, config)


def _save(model: keras.Model, path: Path) -> None:
    part = path.with_name(f"part-{path.name}")
    model.save(part)
    part.replace(path)


def _version(package: str) -> str:
    for distribution in (package, f"{package}-cpu"):
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"


def _git_revision() -> str:
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return result.stdout.strip() or "unknown"
