"""A model file passes its checks, or is refused with one line that says what to do."""

import json
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest

from kwsd.core.card import METADATA_KEY, ModelCard, golden_windows
from kwsd.core.model import DEFAULT_MODEL, load_model
from kwsd.errors import ModelError
from support import DEMO, kwsd


@pytest.fixture
def changed(tmp_path):
    """A copy of the bundled model with its card, or its graph, changed."""

    def change(edit_card=None, edit_graph=None):
        graph = onnx.load(DEFAULT_MODEL)
        if edit_graph:
            edit_graph(graph)
        if edit_card:
            [prop] = [p for p in graph.metadata_props if p.key == METADATA_KEY]
            card = json.loads(prop.value)
            edit_card(card)
            prop.value = json.dumps(card)
        path = tmp_path / "changed.onnx"
        onnx.save(graph, path)
        return path

    return change


def test_the_bundled_model_has_a_complete_card(model):
    card = model.card
    assert card.labels == ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "silence", "unknown"]
    assert card.keywords == card.labels[:10]
    assert (card.window_frames, card.frontend.n_bands, card.window_samples) == (98, 40, 16000)
    assert card.stride_frames * card.frontend.hop_samples == 1600  # 100 ms at 16 kHz
    assert "CC BY 4.0" in card.attribution
    assert card.results["validation"]["accuracy"] >= 0.92
    assert model.provider == "CPUExecutionProvider"


def test_a_card_read_back_from_its_json_is_equal(model):
    assert ModelCard.from_json(model.card.to_json()) == model.card


def test_the_odds_of_unknown_are_adjusted_for_clips(model):
    posteriors = np.full((1, 12), 0.05, np.float32)
    posteriors[0, 0], posteriors[0, 11] = 0.2, 0.3
    clips = replace(model.card, unknown_odds=0.5).with_unknown_odds(posteriors)
    assert clips.sum() == pytest.approx(1)
    assert clips[0, 11] / clips[0, 0] == pytest.approx(0.75)
    assert clips[0, 1] / clips[0, 0] == pytest.approx(0.25)


def test_posteriors_are_probabilities_and_do_not_depend_on_the_batch(model):
    card = model.card
    windows = golden_windows(1, 7, card.window_frames, card.frontend)
    posteriors = model.posteriors(windows)
    assert posteriors.shape == (7, 12)
    np.testing.assert_allclose(posteriors.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([model.posteriors(w[None]) for w in windows]), posteriors, atol=1e-6)


def test_golden_windows_depend_only_on_their_seed(model):
    windows = golden_windows(1, 2, 98, model.card.frontend)
    assert windows.shape == (2, 98, 40)
    np.testing.assert_array_equal(windows, golden_windows(1, 2, 98, model.card.frontend))
    assert float(np.abs(windows - golden_windows(2, 2, 98, model.card.frontend)).max()) > 1


def refused(path, reason, **options):
    with pytest.raises(ModelError, match=reason) as raised:
        load_model(path, **options)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_a_kwsd_model_is_refused(tmp_path, changed):
    refused(tmp_path / "absent.onnx", "absent.onnx: no such model file")
    (tmp_path / "text.onnx").write_text("not a model")
    refused(tmp_path / "text.onnx", "text.onnx: ONNX Runtime cannot load it")
    refused(changed(edit_graph=lambda graph: graph.ClearField("metadata_props")), "not a kwsd model")


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda card: card.update(format=1), "format 1, this kwsd reads 2"),
        (lambda card: card.pop("labels"), "labels: missing"),
        (lambda card: card.update(colour="red"), "colour: unknown key"),
        (lambda card: card["frontend"].update(fft_size=100), "frontend.fft_size: smaller"),
        (lambda card: card["frontend"].update(resampler="sox"), "resampler: 'sox' is not one of soxr HQ"),
        (lambda card: card["decision"]["thresholds"].pop("yes"), "thresholds: not the same as the keywords"),
        (lambda card: card.update(window_frames=90), r"the graph maps \[\[98, 40\]\]"),
        (lambda card: card["decision"]["thresholds"].update(yes=5.0), "thresholds.yes: 5 is not between 0 and 1"),
        (lambda card: card["decision"].update(refractory_seconds=-1), "refractory_seconds: -1 is not between"),
        (lambda card: card.update(unknown_odds=0), "unknown_odds: 0 is not between"),
        (lambda card: card["golden"].update(posteriors=card["golden"]["posteriors"] * 20), "more than 100 windows"),
        (lambda card: card["frontend"].update(hop_samples=16000), "a window is longer than 10 s"),
        (lambda card: card["frontend"].update(fft_size=65536), "fft_size: 65536 is not between 1 and 16384"),
        (lambda card: card["labels"].__setitem__(0, "a\nb"), r"labels.* is not text that can be shown"),
        (lambda card: card.update(name="\x1b[31m"), "name: .* is not text that can be shown"),
        (lambda card: card["golden"]["posteriors"][0].reverse(), "golden check failed on CPUExecutionProvider"),
        (lambda card: card["frontend"].update(log_floor=1e-6), "golden check failed"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(changed, edit, reason):
    refused(changed(edit_card=edit), reason)


def test_changed_weights_fail_the_golden_check(changed):
    def disturb(graph):
        weights = next(w for w in graph.graph.initializer if len(w.dims) >= 3)
        array = onnx.numpy_helper.to_array(weights) * 1.5
        weights.CopyFrom(onnx.numpy_helper.from_array(array, weights.name))

    refused(changed(edit_graph=disturb), "golden check failed")


def test_telemetry_is_switched_off(tmp_path):
    """If ONNX Runtime's telemetry is on, it stores an identifier and a queue below the home folder."""
    environment = {key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    assert kwsd("spot", DEMO, env=environment).returncode == 0
    assert list(tmp_path.rglob("*")) == []


def test_cuda_does_not_fall_back_silently():
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    refused(None, "CUDA is not available.*--device cpu", device="cuda")
    assert load_model(device="auto").provider == "CPUExecutionProvider"


def test_two_runtimes_in_one_environment_are_refused(tmp_path, monkeypatch):
    assert load_model(device="cpu").provider == "CPUExecutionProvider"
    (tmp_path / "onnxruntime_gpu-1.31.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    refused(DEFAULT_MODEL, "both installed and overwrite each other")
