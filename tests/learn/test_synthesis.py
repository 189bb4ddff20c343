"""Synthesisers with tiny voices: each token, or each text, becomes a tone, and a voice decides which."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kwsd.errors import LearnError, ModelError
from kwsd.learn.synthesis import ESPEAK_NG, N_TAKES, find_synthesiser, synthesise
from kwsd.learn.takes import RATE_HZ

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the synthesisers' packages

_KOKORO_HZ, _PIPER_HZ = 24000, 22050


@pytest.fixture
def kokoro(tmp_path):
    """A tone of 50 ms for each token, as loud as the style's mean."""
    tone = _tone(440, _KOKORO_HZ // 20, _KOKORO_HZ)
    nodes = [
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["n"]),
        helper.make_node("Tile", ["tone", "n"], ["tones"]),
        helper.make_node("ReduceMean", ["style"], ["loudness"], keepdims=0),
        helper.make_node("Mul", ["tones", "loudness"], ["audio"]),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n_tokens"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    _save(nodes, inputs, "audio", {"tone": tone, "one": np.array([1])}, tmp_path / "kokoro-tiny.onnx")
    styles = {name: np.full((510, 1, 256), loudness, np.float32) for name, loudness in (("a", 0.2), ("b", 0.6))}
    with (tmp_path / "voices-tiny.bin").open("wb") as file:
        np.savez(file, **styles)
    return tmp_path


@pytest.fixture
def piper(tmp_path):
    """Half a second of a tone: 400 Hz by the first speaker, and 800 Hz by the second."""
    tones = np.stack([_tone(hz, _PIPER_HZ // 2, _PIPER_HZ) for hz in (400, 800)])
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("sid", TensorProto.INT64, [1]),
    ]
    nodes = [helper.make_node("Gather", ["tones", "sid"], ["audio"])]
    _save(nodes, inputs, "audio", {"tones": tones}, tmp_path / "tiny.onnx")
    symbols = {symbol: [number] for number, symbol in enumerate("_^$ abcdefghijklmnopqrstuvwxyzəɚˈːʌ")}
    configuration = {
        "audio": {"sample_rate": _PIPER_HZ},
        "espeak": {"voice": "en-us"},
        "num_symbols": len(symbols),
        "num_speakers": 2,
        "phoneme_id_map": symbols,
    }
    (tmp_path / "tiny.onnx.json").write_text(json.dumps(configuration))
    return tmp_path


def test_kokoro_has_its_voices_and_the_means_of_two(kokoro):
    synthesiser = find_synthesiser(kokoro)
    assert synthesiser.voices == ["a", "b", "a+b"]
    loudness = [np.abs(synthesiser.say("computer", voice, 1.0)).max() for voice in synthesiser.voices]
    np.testing.assert_allclose(loudness, [0.2, 0.6, 0.4], rtol=0.05)


def test_piper_has_every_speaker_of_a_voice(piper):
    synthesiser = find_synthesiser(piper)
    assert synthesiser.voices == ["tiny_0", "tiny_1"]
    for voice, hz in zip(synthesiser.voices, (400, 800), strict=True):
        samples = synthesiser.say("a cat", voice, 1.0)
        assert np.argmax(np.abs(np.fft.rfft(samples))) * RATE_HZ / len(samples) == pytest.approx(hz, abs=4)


@pytest.mark.skipif(shutil.which(ESPEAK_NG) is None, reason="espeak-ng is not installed")
def test_espeak_speaks_in_thirty_voices(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    takes = synthesise("computer", find_synthesiser())
    assert len({take.path for take in takes}) == N_TAKES == 30
    assert {take.synthesiser for take in takes} == {ESPEAK_NG}
    assert all(0.3 < take.seconds < 1.2 for take in takes)


def test_the_usual_folder_comes_before_espeak(kokoro, monkeypatch):
    (kokoro / "kwsd").mkdir()
    (kokoro / "kwsd" / "voices").symlink_to(kokoro)
    monkeypatch.setenv("XDG_DATA_HOME", str(kokoro))
    assert find_synthesiser().name == "kokoro-onnx"


def test_a_text_without_sounds_is_refused(kokoro, piper):
    for path in (kokoro / "kokoro-tiny.onnx", None):
        synthesiser = find_synthesiser(kokoro)
        with pytest.raises(LearnError, match=rf"^{synthesiser.name} cannot say '_'"):
            synthesiser.say("_", synthesiser.voices[0], 1.0)
        if path:
            path.unlink()
    assert synthesiser.name == "piper"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "voices-tiny.bin").unlink(), r"kokoro-tiny\.onnx: needs voices\*\.bin beside it"),
        (lambda folder: (folder / "voices-tiny.bin").write_bytes(b"no"), r"voices-tiny\.bin: no voices of kokoro-onnx"),
        (lambda folder: (folder / "kokoro-tiny.onnx").write_bytes(b"no"), r"kokoro-tiny\.onnx: ONNX Runtime cannot"),
        (lambda folder: (folder / "kokoro-tiny.onnx").unlink(), r"no voices of kokoro-onnx"),
    ],
)
def test_damaged_voices_of_kokoro_are_named(kokoro, damage, message):
    damage(kokoro)
    with pytest.raises((LearnError, ModelError), match=message):
        find_synthesiser(kokoro)


def test_damaged_voices_of_piper_are_named(piper):
    (piper / "tiny.onnx.json").write_text("{")
    with pytest.raises(LearnError, match=r"tiny\.onnx\.json: piper cannot load this voice"):
        find_synthesiser(piper)


def _tone(hz, n_samples, rate_hz):
    return np.sin(2 * np.pi * hz * np.arange(n_samples) / rate_hz).astype(np.float32)


def _save(nodes, inputs, output, constants, path):
    outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "voice", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
