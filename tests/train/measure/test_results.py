"""RESULTS.md shows the figures of the reports, with the commands that made them."""

import json

import numpy as np
import pytest

from kwsd.core.sweep import TimedSweep
from kwsd.errors import TrainingError
from train.measure.clips import score
from train.measure.results import write_results
from train.measure.stream_report import describe
from train.measure.streams import Said, match


@pytest.fixture
def reports(tmp_path, model):
    labels = model.card.labels
    head = {
        "model": "ds_tcn",
        "digest": "0123456789abcdef",
        "provider": "CPUExecutionProvider",
        "training": {},
    }
    clips = {**head, "split": "validation", **score(np.arange(12), np.arange(12), labels)}
    clips["accuracy_augmented"] = 0.95
    clips["accuracy_at_snr_db"] = {"20": 0.9, "10": 0.8, "5": 0.7, "0": 0.6}
    measured = match(
        [Said(0, 2.0 * n, 2.0 * n + 1.5, n // 6) for n in range(8)], TimedSweep(model.card), 7200.0, 10, []
    )
    stream = {**head, "split": "validation", "seed": 2, "stride_seconds": 0.1}
    stream["made_of"] = {"keywords": 1, "other_words": 400, "speech_minutes": 37.6, "noise_minutes": 8.0}
    stream["streams"] = {"words": describe(measured, labels[:10])}
    for name, epochs in (("ds_tcn", 3), ("ablations/longer", 9)):
        folder = tmp_path / "results" / name
        folder.mkdir(parents=True)
        hyper = {"epochs": epochs, "restarts": 0}
        trained = {"training": {"hyperparameters": hyper, "minutes": 12.5, "windows_per_second": 9000}}
        (folder / "validation.json").write_text(json.dumps(clips | trained))
        (folder / "stream-validation.json").write_text(json.dumps(stream | trained))
    stream["split"], stream["streams"]["words"]["at_rate"]["1"]["frr"] = "training", 0.25
    (tmp_path / "results" / "ds_tcn" / "stream-training.json").write_text(json.dumps(stream))
    return tmp_path / "results"


def test_every_table_is_made_from_the_reports(reports, tmp_path):
    write_results(reports, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| ds_tcn | 92 k | 3.3 M | 1.0000 (" in text
    assert "| **100.0%** (too few hours to show it) (0.0; 100.0%) | 0.00 s | 2 |" in text  # this stream has two hours
    assert "kwsd/models/ds_tcn.onnx --data DATA -o docs/results/ds_tcn`, and with `--stream --hours 2 --seed 2`" in text
    assert "On streams of the recordings that it was trained on, ds_tcn misses words 25.0%." in text
    assert "`--stream --split training --hours 2 --seed 2`" in text
    assert "words: 1 of 1 recordings of keywords are never heard" in text  # the other recording occurs only twice
    assert "they are 100% of the misses" in text
    assert "| ds_tcn |  | 1.0000 | 100.0% |" in text
    assert "| longer | `epochs=9` | 1.0000 | 100.0% |" in text
    assert "-o docs/results/ablations/NAME`, and with `--stream --hours 2 --seed 2`" in text
    assert "; trained in 12.5 minutes, 9000 windows a second" in text
    assert (tmp_path / "trade-off.png").stat().st_size > 5000
    first = text
    write_results(reports, tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text() == first


def test_a_damaged_report_is_named(reports, tmp_path):
    (reports / "ds_tcn" / "validation.json").write_text("{")
    with pytest.raises(TrainingError, match=r"validation\.json: damaged"):
        write_results(reports, tmp_path / "RESULTS.md")


def test_an_ablation_without_streams_is_named(reports, tmp_path):
    (reports / "ablations" / "longer" / "stream-validation.json").unlink()
    with pytest.raises(TrainingError, match=r"ablations/longer: needs the .* streams; run `.*--stream --hours 2"):
        write_results(reports, tmp_path / "RESULTS.md")


def test_an_ablation_with_other_streams_is_named(reports, tmp_path):
    path = reports / "ablations" / "longer" / "stream-validation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": 9}))
    with pytest.raises(TrainingError, match=r"ablations/longer: needs the bundled model's streams"):
        write_results(reports, tmp_path / "RESULTS.md")


def test_a_report_on_training_streams_of_another_model_is_refused(reports, tmp_path):
    path = reports / "ds_tcn" / "stream-training.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "another"}))
    with pytest.raises(TrainingError, match=r"stream-training\.json: its model, seed or hours differ"):
        write_results(reports, tmp_path / "RESULTS.md")


def test_ablations_need_reports_of_the_bundled_model(reports, tmp_path):
    (reports / "ds_tcn").rename(reports / "another")
    with pytest.raises(TrainingError, match=r"ds_tcn: no reports; ablations are compared with them"):
        write_results(reports, tmp_path / "RESULTS.md")
