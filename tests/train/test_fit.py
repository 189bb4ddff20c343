"""The whole way on a tiny corpus: fit, interrupt, resume, evaluate, export, and hear it."""

import json
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

from export.__main__ import export
from kwsd.errors import ExportError, TrainingError
from kwsd.label import label_folder
from kwsd.model import load_model
from support import ROOT
from train.architectures import ARCHITECTURES, light_cnn
from train.data import find_corpus, read_clip
from train.evaluate import choose_decision, evaluate, score, wilson
from train.fit import fit
from train.hyperparameters import Hyperparameters

HYPER = Hyperparameters(epochs=4, n_variants=2, n_silence=30, unknown_ratio=1.0, batch_size=16, noise_probability=0.2)


@pytest.fixture(scope="session")
def corpus(corpus_folder):
    return find_corpus(corpus_folder, ("yes", "no"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(corpus, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(corpus, "light_cnn", HYPER, folder, cache)
    return folder


def test_a_run_holds_what_repeats_it(run, corpus):
    names = {path.name for path in run.iterdir()}
    assert {"config.json", "checkpoint-4.keras", "history.json", "history.png", "model.keras"} <= names
    assert {"validation.json", "validation.png", "validation.csv"} <= names
    assert not [name for name in names if name.startswith("part-")]
    config = json.loads((run / "config.json").read_text())
    assert config["files_digest"] == corpus.files_digest()
    assert config["hyperparameters"] == HYPER.to_dict()
    assert config["labels"] == ["yes", "no", "silence", "unknown"]
    history = json.loads((run / "history.json").read_text())
    assert len(history) == HYPER.epochs
    assert history[-1]["loss"] < history[0]["loss"]
    assert "/" not in json.dumps(config)  # no path of this machine


def test_an_interrupted_training_goes_on_as_if_it_had_not_been(run, corpus, cache, tmp_path, monkeypatch):
    saved = []
    real_save = keras.Model.save

    def save(self, path, **options):
        real_save(self, path, **options)
        saved.append(path)
        if len(saved) == 4:  # before the third or fourth epoch counts
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, "light_cnn", HYPER, tmp_path / "run", cache)
    monkeypatch.undo()
    n_done = len(json.loads((tmp_path / "run" / "history.json").read_text()))
    assert 0 < n_done < HYPER.epochs
    fit(corpus, "light_cnn", HYPER, tmp_path / "run", cache)
    whole, resumed = (keras.models.load_model(folder / "checkpoint-4.keras") for folder in (run, tmp_path / "run"))
    for a, b in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)  # threads sum in any order


def test_a_folder_of_another_training_is_refused(run, corpus, cache):
    with pytest.raises(TrainingError, match=r"holds another training \(different hyperparameters\)"):
        fit(corpus, "light_cnn", Hyperparameters(seed=9), run, cache)


def test_evaluate_counts_every_clip_once(run, corpus, cache):
    report = evaluate(run, corpus, "testing", cache)
    n_clips = sum(map(sum, report["confusion"]))
    assert n_clips == report["n_clips"] > 0
    assert report["accuracy"] == np.trace(np.array(report["confusion"])) / n_clips
    low, high = report["interval_95"]
    assert low < report["accuracy"] <= high
    assert json.loads((run / "testing.json").read_text())["accuracy"] == report["accuracy"]
    assert (run / "testing.png").stat().st_size > 5000
    assert len((run / "testing.csv").read_text().splitlines()) == 1 + n_clips


def test_export_proves_itself_and_label_says_what_evaluate_says(run, corpus, cache, tmp_path, write_wav):
    assert export(run, tmp_path / "model.onnx", corpus.root) < 1e-4
    assert export(run, tmp_path / "model.onnx") < 1e-4  # on synthetic clips
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    model = load_model(tmp_path / "model.onnx", "cpu")
    assert model.card.keywords == ["yes", "no"]
    assert model.card.training["files_digest"] == corpus.files_digest()
    assert model.card.results["validation"]["n_clips"] > 0
    report = evaluate(run, corpus, "validation", cache)
    assert report["n_clips"] > 0
    rows = [line.split(",") for line in (run / "validation.csv").read_text().splitlines()[1:]]
    by_evaluate = {}
    for index, (file, start, gain, _, label) in enumerate(rows):
        whole = [
            clip for clip in corpus.clips["validation"] if file.endswith(f"{clip.path.parent.name}/{clip.path.name}")
        ]
        if whole and (start, float(gain)) == ("0", 1.0):
            by_evaluate[f"{index:04}.wav"] = label
            write_wav(f"clips/{index:04}.wav", read_clip(whole[0]))
    label_folder(tmp_path / "clips", tmp_path / "s.csv", model)
    by_label = dict(line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:])
    assert by_label == by_evaluate


def test_a_failed_export_leaves_no_file(run, tmp_path, monkeypatch):
    import export.parity

    monkeypatch.setattr(export.parity, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="Keras and ONNX Runtime differ by"):
        export.__main__.export(run, tmp_path / "model.onnx")
    damaged = shutil.copytree(run, tmp_path / "run")
    (damaged / "validation.json").unlink()
    with pytest.raises(ExportError, match="python -m train evaluate"):
        export.__main__.export(damaged, tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match="no trained model here"):
        export.__main__.export(tmp_path / "absent", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_light_cnn_is_the_notebooks():
    """314 k parameters for 99x81 and twelve labels; `wide` doubles every convolution."""
    model = light_cnn((99, 81), 12)
    assert model.count_params() == pytest.approx(314_000, rel=0.01)
    kinds = [type(layer).__name__ for layer in model.layers]
    group = ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout"]
    dense = ["Dense", "BatchNormalization"] * 2
    head = ["InputLayer", "Reshape", "BatchNormalization"]
    assert kinds == [*head, *group, *group, "Conv2D", "MaxPooling2D", "Dropout", "Flatten", *dense, "Dense"]
    filters = [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert filters == [8, 8, 16, 16, 32]
    wide = ARCHITECTURES["light_cnn_wide"].build((99, 81), 12)
    assert [layer.filters for layer in wide.layers if isinstance(layer, keras.layers.Conv2D)] == [16, 16, 32, 32, 64]
    assert ARCHITECTURES["light_cnn_wide"].frontend.name == "spectrogram_8k"


def test_scores():
    report = score(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), ["a", "b"])
    assert report["confusion"] == [[1, 1], [1, 2]]
    assert report["accuracy"] == 0.6
    assert report["recall"] == {"a": 0.5, "b": 0.6667}
    assert wilson(50, 100) == pytest.approx((0.404, 0.596), abs=1e-3)  # Wilson's own example range


def test_thresholds_let_one_in_a_hundred_others_through():
    random = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 1000)
    posteriors = random.uniform(0, 0.85, (3000, 3))
    decision = choose_decision(truth, posteriors, ["yes", "silence", "unknown"])
    assert set(decision["thresholds"]) == {"yes"}
    threshold = decision["thresholds"]["yes"]
    assert np.mean(posteriors[truth != 0, 0] > threshold) == pytest.approx(0.01, abs=0.002)


def test_the_command_line_says_mistakes_in_one_line(tmp_path):
    def mistake(reason, *arguments):
        command = [sys.executable, "-m", "train", *map(str, arguments)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1
        assert "Traceback" not in result.stderr
        assert reason in result.stderr.strip().splitlines()[-1]

    fit_here = ("fit", "--data", tmp_path, "-o", tmp_path / "r", "--architecture")
    mistake("no recordings found", *fit_here, "light_cnn")
    mistake("vgg: unknown; there are light_cnn", *fit_here, "vgg")
    mistake("no trained model here", "evaluate", tmp_path / "r", "--data", tmp_path)


def test_hyperparameters_are_changed_by_name():
    assert Hyperparameters().changed(["seed=5", "learning_rate=3e-4"]).learning_rate == 3e-4
    with pytest.raises(TrainingError, match="--set epoch=3: no such hyper-parameter; there are seed, epochs"):
        Hyperparameters().changed(["epoch=3"])
    with pytest.raises(TrainingError, match="seed takes int values"):
        Hyperparameters().changed(["seed=x"])
    for assignment in ("epochs=0", "batch_size=-1", "unknown_ratio=nan", "noise_probability=2"):
        with pytest.raises(TrainingError, match="out of range"):
            Hyperparameters().changed([assignment])
