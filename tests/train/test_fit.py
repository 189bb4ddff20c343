"""The whole pipeline on a tiny corpus: fit, interrupt, resume, evaluate, export, and run the model."""

import fcntl
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from export.__main__ import export
from kwsd.commands.label import label_corpus
from kwsd.core.model import load_model
from kwsd.corpus.folder import Folder
from kwsd.errors import ExportError, TrainingError
from train.__main__ import main
from train.fit import fit
from train.hyperparameters import Hyperparameters
from train.measure import decide
from train.measure.clips import evaluate
from train.measure.subject import KerasModel, load_subject
from train.recordings.corpus import find_corpus, read_clip
from train.recordings.material import default_cache

HYPER = Hyperparameters(epochs=2, restarts=1, restart_epochs=1, scenes_per_epoch=12, batch_seconds=60, clip_noise=0.2)
LIGHT_HYPER = Hyperparameters(epochs=2, restarts=0, scenes_per_epoch=6, batch_seconds=60)


@pytest.fixture(scope="session")
def corpus(corpus_folder):
    return find_corpus(corpus_folder, ("yes", "no"))


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def run(corpus, cache, tmp_path_factory, short_streams):
    folder = tmp_path_factory.mktemp("runs") / "run"
    fit(corpus, "ds_tcn", HYPER, folder, cache)
    return folder


@pytest.fixture(scope="session", autouse=True)
def short_streams():
    """Choose decisions on minutes of stream instead of hours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "HOURS", 0.02)
        yield


def test_a_run_contains_everything_needed_to_repeat_it(run, corpus):
    names = {path.name for path in run.iterdir()}
    assert sorted(name for name in names if name.startswith("checkpoint")) == [
        "checkpoint-2.keras",  # the teacher of the last
        "checkpoint-3.keras",
    ]
    assert {"config.json", "history.json", "history.png", "model.keras"} <= names
    assert {"validation.json", "validation.png", "validation.csv", "decision.json"} <= names
    assert not [name for name in names if name.startswith(".kwsd-part-")]
    config = json.loads((run / "config.json").read_text())
    assert config["files_digest"] == corpus.files_digest()
    assert config["hyperparameters"] == HYPER.to_dict()
    assert config["labels"] == ["yes", "no", "silence", "unknown"]
    history = json.loads((run / "history.json").read_text())
    assert len(history) == HYPER.n_epochs == 3
    assert history[1]["loss"] < history[0]["loss"]
    assert "/" not in json.dumps(config)  # no path of this machine


@pytest.fixture(scope="session")
def light_run(corpus, cache, tmp_path_factory, short_streams):
    folder = tmp_path_factory.mktemp("runs") / "light_run"
    fit(corpus, "light_cnn", LIGHT_HYPER, folder, cache)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ds_tcn", "light_cnn"])  # the second has dropout
def test_an_interrupted_training_resumes_to_the_same_weights(
    architecture, run, light_run, corpus, cache, tmp_path, monkeypatch
):
    hyper, whole_run = (HYPER, run) if architecture == "ds_tcn" else (LIGHT_HYPER, light_run)
    saved = []
    real_save = keras.Model.save

    def save(self, path, **options):
        real_save(self, path, **options)
        saved.append(path)
        if len(saved) == 2:  # before the second epoch, the last of its stage, is recorded
            raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "save", save)
    with pytest.raises(KeyboardInterrupt):
        fit(corpus, architecture, hyper, tmp_path / "run", cache)
    monkeypatch.undo()
    assert len(json.loads((tmp_path / "run" / "history.json").read_text())) == 1
    fit(corpus, architecture, hyper, tmp_path / "run", cache)
    assert_same_weights(whole_run, tmp_path / "run", hyper.n_epochs)


def assert_same_weights(a_run, b_run, n_epochs):
    a, b = (keras.models.load_model(folder / f"checkpoint-{n_epochs}.keras") for folder in (a_run, b_run))
    for of_a, of_b in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(of_a, of_b, atol=1e-3)  # threads add up in any order


@pytest.mark.slow
def test_a_training_resumed_between_two_stages_still_has_its_teacher(run, corpus, cache, tmp_path):
    handed_over = shutil.copytree(run, tmp_path / "run")
    for path in ("model.keras", "checkpoint-3.keras"):
        (handed_over / path).unlink()
    history = json.loads((run / "history.json").read_text())
    (handed_over / "history.json").write_text(json.dumps(history[:2]))
    fit(corpus, "ds_tcn", HYPER, handed_over, cache)
    assert_same_weights(run, handed_over, HYPER.n_epochs)


def test_two_trainings_cannot_share_a_folder(run, corpus, cache):
    folder = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with pytest.raises(TrainingError, match="another fit is using it; give -o another folder"):
            fit(corpus, "ds_tcn", HYPER, run, cache)
    finally:
        os.close(folder)


def test_a_missing_checkpoint_is_named(run, corpus, cache, tmp_path):
    broken = shutil.copytree(run, tmp_path / "run")
    for path in ("model.keras", "checkpoint-3.keras"):
        (broken / path).unlink()
    with pytest.raises(TrainingError, match=r"checkpoint-3\.keras: missing or damaged .* give -o another folder"):
        fit(corpus, "ds_tcn", HYPER, broken, cache)


def test_a_folder_of_another_training_is_refused(run, corpus, cache):
    with pytest.raises(TrainingError, match=r"holds another training \(different hyperparameters\)"):
        fit(corpus, "ds_tcn", Hyperparameters(seed=9), run, cache)


def test_evaluate_counts_every_clip_once(run, corpus):
    report = evaluate(KerasModel(run), corpus, "testing", run)
    n_clips = sum(map(sum, report["confusion"]))
    assert n_clips == report["n_clips"] > 0
    assert report["accuracy"] == np.trace(np.array(report["confusion"])) / n_clips
    low, high = report["interval_95"]
    assert low < report["accuracy"] <= high
    assert json.loads((run / "testing.json").read_text())["accuracy"] == report["accuracy"]
    assert (run / "testing.png").stat().st_size > 5000
    assert len((run / "testing.csv").read_text().splitlines()) == 1 + n_clips


def test_export_checks_its_result_and_label_agrees_with_evaluate(run, corpus, tmp_path, write_wav):
    assert export(run, tmp_path / "model.onnx", corpus.root) < 1e-4
    assert export(run, tmp_path / "model.onnx") < 1e-4  # on synthetic clips
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    model = load_model(tmp_path / "model.onnx", "cpu")
    assert model.card.keywords == ["yes", "no"]
    assert model.card.training["files_digest"] == corpus.files_digest()
    assert model.card.training["windows_per_second"] > 0
    assert model.card.results["validation"]["n_clips"] > 0
    assert "tf2onnx" not in model.card.training["versions"]  # a causal network's graphs are written without it
    chosen = json.loads((run / "decision.json").read_text())
    assert model.card.decision.thresholds == chosen["decision"]["thresholds"]
    assert model.card.unknown_odds == chosen["unknown_odds"]
    report = evaluate(load_subject(tmp_path / "model.onnx"), corpus, "validation", tmp_path / "reports")
    assert report["accuracy"] == json.loads((run / "validation.json").read_text())["accuracy"]
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
    label_corpus(Folder(tmp_path / "clips"), tmp_path / "s.csv", model)
    by_label = dict(line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines()[1:])
    assert by_label == by_evaluate


@pytest.mark.slow
def test_a_network_of_whole_windows_is_exported_by_tf2onnx(light_run, tmp_path):
    assert export(light_run, tmp_path / "model.onnx") < 1e-4
    model = load_model(tmp_path / "model.onnx", "cpu")
    assert model.card.name == "light_cnn"
    assert "tf2onnx" in model.card.training["versions"]


@pytest.mark.slow
def test_evaluate_measures_streams_and_the_users_background(run, corpus, cache, tmp_path, monkeypatch, capsys):
    def evaluate_streams(*arguments):
        common = ("--data", corpus.root, "--cache", cache, "--hours", "0.05", "--stream")
        monkeypatch.setattr(sys, "argv", ["train", "evaluate", *map(str, (run, *common, "-o", tmp_path, *arguments))])
        assert main() == 0
        [*_, written] = capsys.readouterr().out.splitlines()
        return json.loads(Path(written.removeprefix("written: ").removesuffix(", .png")).read_text())

    report = evaluate_streams()
    assert list(report["streams"]) == ["words"]  # this corpus has no speech for the other kind
    assert report["streams"]["words"]["n_keywords"] > 5
    assert report["seed"] == 3
    assert evaluate_streams() == report
    assert evaluate_streams("--seed", "4") != report
    of_training = evaluate_streams("--split", "training")
    assert of_training["made_of"]["keywords"] > report["made_of"]["keywords"]
    assert (tmp_path / "stream-validation.png").stat().st_size > 5000
    report = evaluate_streams("--background", corpus.root / "_background_noise_")
    [own] = [(name, one["hours"]) for name, one in report["streams"].items()]
    assert own == ("background", round(12 / 3600, 3))  # exactly as long as the recording


def test_a_run_of_another_front_end_is_refused(run, tmp_path):
    other = shutil.copytree(run, tmp_path / "run")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"frontend_digest": "0"}))
    with pytest.raises(TrainingError, match="another front end"):
        KerasModel(other)


def test_a_failed_export_leaves_no_file(run, tmp_path, monkeypatch):
    import export.parity

    monkeypatch.setattr(export.parity, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="Keras and ONNX Runtime differ by"):
        export.__main__.export(run, tmp_path / "model.onnx")
    damaged = shutil.copytree(run, tmp_path / "run")
    (damaged / "validation.json").unlink()
    with pytest.raises(ExportError, match=r"validation\.json: missing"):
        export.__main__.export(damaged, tmp_path / "model.onnx")
    with pytest.raises(TrainingError, match="no trained model here"):
        export.__main__.export(tmp_path / "absent", tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_clips_whose_names_identify_no_speaker_are_counted(corpus_folder, tmp_path):
    copy = shutil.copytree(corpus_folder, tmp_path / "copy")
    for path in (copy / "yes").glob("*.wav"):
        path.rename(path.with_name(path.name.replace("_nohash_", "_")))
    assert find_corpus(copy, ("yes", "no")).n_nameless == len(list((copy / "yes").iterdir()))
    assert find_corpus(corpus_folder, ("yes", "no")).n_nameless == 0


def test_the_command_line_reports_mistakes_in_one_line(tmp_path, monkeypatch, capsys, corpus_folder):
    def mistake(reason, *arguments):
        monkeypatch.setattr(sys, "argv", ["train", *map(str, arguments)])
        assert main() == 1
        [line] = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("train: ")
        assert reason in line

    fit_here = ("fit", "--data", tmp_path, "-o", tmp_path / "r", "--architecture")
    mistake("no recordings found", *fit_here, "light_cnn")
    mistake("vgg: unknown; there are ds_tcn, light_cnn", *fit_here, "vgg")
    mistake("/proc/r: No such file or directory", "fit", "--data", corpus_folder, "--words", "yes,no", "-o", "/proc/r")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "config.json").write_text("{")
    mistake("config.json: damaged", "fit", "--data", corpus_folder, "--words", "yes,no", "-o", tmp_path / "r")
    (tmp_path / "r" / "config.json").unlink()
    mistake("no trained model here", "evaluate", tmp_path / "r", "--data", tmp_path)
    mistake("no such model file", "evaluate", tmp_path / "r.onnx", "--data", tmp_path)
    for option, value in (("--split", "training"), ("--hours", 30), ("--seed", 4), ("--background", tmp_path)):
        mistake("needs --stream", "evaluate", tmp_path / "r.onnx", "--data", tmp_path, option, value)
    mistake("--home, --background: choose one", "evaluate", "m", "--data", "d", "--home", "--background", "b")
    mistake("no reports", "results", tmp_path, "-o", tmp_path / "R.md")


def test_a_refused_fit_does_not_claim_its_folder(corpus, cache, tmp_path):
    nobody = replace(corpus, clips=corpus.clips | {"validation": []})
    with pytest.raises(TrainingError, match="no recording of yes, no"):
        fit(nobody, "ds_tcn", HYPER, tmp_path / "run", cache)
    assert not (tmp_path / "run" / "config.json").exists()


def test_only_commands_that_need_a_cache_ask_for_a_home_folder(monkeypatch, capsys):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", ["train", "fit", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "--cache DIR" in capsys.readouterr().out
    with pytest.raises(TrainingError, match="no home folder for cached recordings; give --cache DIR"):
        default_cache()
