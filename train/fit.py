"""Training, read from top to bottom.

Law: a run folder identifies everything that is needed to repeat the training. An interrupted training
continues after its last complete epoch and gives the same numbers.

A training has stages. Each starts with the weights of the stage before and the full learning rate
(restarts: I. Loshchilov, F. Hutter, 2017). The networks at the ends of the stages therefore err in
different windows, and their mean is better than each of them (snapshot ensembles: G. Huang et al.,
2017). In the last stage the network learns the mean posteriors of the earlier ones instead of the
truth (distillation: G. Hinton et al., 2015).

    RUN/config.json         architecture, front end, labels, hyper-parameters, digests, versions
    RUN/checkpoint-N.keras  the model after N epochs, with its optimizer; the last of each stage is kept
    RUN/history.json        loss and accuracy for each epoch
    RUN/history.png         the same as a picture
    RUN/model.keras         the model after the last epoch
    RUN/validation.*        its evaluation on validation clips (`train.measure.clips`)
    RUN/decision.json       the decision chosen on validation streams (`train.measure.decide`)
"""

import fcntl
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from tqdm import tqdm

from kwsd import __version__
from kwsd.audio import FloatArray
from kwsd.core.frontend import FrontendParams
from kwsd.core.rows import IntArray
from kwsd.errors import TrainingError
from kwsd.files import whole
from train.architectures import ARCHITECTURES, with_labels
from train.files import read_json, write_json
from train.hyperparameters import Hyperparameters
from train.measure import plots
from train.measure.clips import evaluate
from train.measure.decide import choose
from train.measure.subject import KerasModel
from train.objective import DecayingMuon, MarginLoss
from train.recordings.corpus import Corpus
from train.recordings.features import Examples, held_out_examples
from train.recordings.material import gather
from train.recordings.windows import Epochs, Recipe, window_frames


def fit(corpus: Corpus, architecture: str, hyper: Hyperparameters, run: Path, cache: Path) -> None:
    """Train a model, or continue an interrupted training.

    Raises:
        TrainingError: the run folder holds another training, or is in use.
    """
    with _lock(run):
        _fit(corpus, architecture, hyper, run, cache)


@contextmanager
def _lock(run: Path) -> Iterator[None]:
    """Keep another training out of the folder. The system removes the lock when the process ends."""
    run.mkdir(parents=True, exist_ok=True)
    folder = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TrainingError(f"{run}: another fit is using it; give -o another folder") from None
    finally:
        os.close(folder)


def _fit(corpus: Corpus, architecture: str, hyper: Hyperparameters, run: Path, cache: Path) -> None:
    params = ARCHITECTURES[architecture].frontend
    config = _configuration(corpus, architecture, params, hyper)
    held_out = gather(corpus, "validation", cache)  # before the training, so that missing recordings are reported
    validation = held_out_examples(corpus, "validation", params)
    _claim(run, config)
    history = _history(run)
    if not (run / "model.keras").exists():
        _train(_recipe(corpus, architecture, hyper, cache), architecture, run, history, validation)
    plots.history(history, run / "history.png")
    if not (run / "decision.json").exists():
        choose(KerasModel(run), validation, held_out, run)
    report = evaluate(KerasModel(run), corpus, "validation", run, validation)
    print(f"{run}: validation accuracy {report['accuracy']:.4f} after {len(history)} epochs")


def _history(run: Path) -> list[dict[str, float]]:
    """One entry for each complete epoch."""
    path = run / "history.json"
    return read_json(path) if path.exists() else []


def _train(recipe: Recipe, architecture: str, run: Path, history: list[dict[str, float]], validation: Examples) -> None:
    """Train the epochs that `history` does not have yet, add them to it, and save the model."""
    hyper = recipe.hyper
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
    _save(with_labels(windows, len(recipe.material.labels)), run / "model.keras")


def _recipe(corpus: Corpus, architecture: str, hyper: Hyperparameters, cache: Path) -> Recipe:
    chosen, material = ARCHITECTURES[architecture], gather(corpus, "training", cache)
    frames = window_frames(chosen.frontend)
    return Recipe(material, chosen.frontend, frames, chosen.n_windows, chosen.step_frames, hyper)


@dataclass(frozen=True, slots=True)
class Stage:
    """Epochs from `begin` to before `end`; `distils` if it learns from the networks of earlier stages."""

    begin: int
    end: int
    distils: bool


def stages_of(hyper: Hyperparameters) -> list[Stage]:
    """The first stage, and its restarts. The last restart distils."""
    ends = [hyper.epochs + n * hyper.restart_epochs for n in range(hyper.restarts + 1)]
    return [Stage(begin, end, distils=begin > 0 and end == ends[-1]) for begin, end in pairwise([0, *ends])]


def _epoch(
    model: keras.Model, teachers: list[keras.Model], epochs: Epochs, recipe: Recipe, epoch: int
) -> dict[str, float]:
    """Train one epoch. All random numbers come from the seed and the epoch's number, so resuming repeats them.

    The loop over batches is written here because Keras's `fit` uses tf.data, which occasionally does
    nothing for half a minute, until its tuner runs again (TensorFlow 2.21).
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
        x, target, weights = stretches.x[batch].astype(np.float32), stretches.words[batch], stretches.weights[batch]
        if teachers:  # they also have an answer for ambiguous windows
            target, weights = _mean_posteriors(teachers, x), np.maximum(weights, 1)
        values = model.train_on_batch(x, target, sample_weight=weights, return_dict=True)
        bar.set_postfix(values, refresh=False)
    values = {what: float(value) for what, value in values.items()}
    print(f"{name}: {', '.join(f'{what} {value:.4f}' for what, value in values.items())}", flush=True)
    n_windows = stretches.weights.size if teachers else np.count_nonzero(stretches.weights)
    seconds = time.monotonic() - began
    times = {"windows_per_second": round(n_windows / seconds), "seconds": round(seconds, 1), "waited": round(waited, 1)}
    return values | times


def _batches(order: IntArray, n: int) -> list[IntArray]:
    return [order[at : at + n] for at in range(0, len(order), n)]


def _mean_posteriors(teachers: list[keras.Model], x: FloatArray) -> FloatArray:
    """The mean of several networks' posteriors. Shape: stretches -> (n, n_windows, n_words)."""
    return np.mean([teacher.predict_on_batch(x) for teacher in teachers], axis=0)


def _validate(windows: keras.Model, clips: Examples) -> dict[str, float]:
    batches = _batches(np.arange(len(clips.y)), 512)
    posteriors = np.concatenate([windows.predict_on_batch(clips.x[batch])[:, 0] for batch in batches])
    heard = np.minimum(np.argmax(posteriors, axis=1), len(clips.labels) - 1)
    return {"val_accuracy": float(np.mean(heard == clips.y))}


def _batch_size(recipe: Recipe) -> int:
    """Stretches in a batch."""
    seconds = recipe.stretch_frames * recipe.params.hop_samples / recipe.params.sample_rate_hz
    return max(1, round(recipe.hyper.batch_seconds / seconds))


def _seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Set the generators of dropout layers: Keras 3.15 saves their state but does not load it."""
    for index, layer in enumerate(model.layers):
        if generator := getattr(layer, "seed_generator", None):
            generator.state.assign(np.array([seed + index, epoch], generator.state.dtype))


def _keep(model: keras.Model, run: Path, history: list[dict[str, float]], stage: Stage) -> None:
    """Save an epoch. It counts as complete once it is in history.json, which is written last."""
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
        raise TrainingError(f"{path}: missing or damaged ({reason}); give -o another folder to start over") from None


def _model(run: Path, architecture: str, recipe: Recipe, stage: Stage, n_done: int) -> keras.Model:
    """The network for stretches after `n_done` epochs; at the start of a stage with a new optimizer."""
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
    # No jit_compile: on a CPU, XLA's convolutions are five times slower than oneDNN's.
    model.compile(optimizer, loss=loss, weighted_metrics=["accuracy"], jit_compile=False)
    return model


def _build(architecture: str, recipe: Recipe, n_frames: int) -> keras.Model:
    """A new network that takes `n_frames` at once."""
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
    """Write the configuration, or check that a run with at least one whole epoch is the same training."""
    path = run / "config.json"
    ignored = ("versions", "git_revision")  # an updated package is no reason to refuse to resume
    if path.exists() and (begun := read_json(path)) and _history(run):
        if differing := [key for key in config if key not in ignored and begun.get(key) != config[key]]:
            raise TrainingError(
                f"{run}: holds another training (different {', '.join(differing)}); give -o another folder"
            )
        return
    write_json(path, config)


def _save(model: keras.Model, path: Path) -> None:
    with whole(path) as part:
        model.save(part)


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
