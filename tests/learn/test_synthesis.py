"""Synthesisers with tiny voices: each token, or each text, becomes a tone, and a voice decides which."""

import json
import shutil
import sys

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
    """A tone of 50 ms for each token, as loud as the style's mean; at twice the speed half of it."""
    tone = _tone(440, _KOKORO_HZ // 20, _KOKORO_HZ)
    nodes = [
        helper.make_node("Shape", ["tokens"], ["shape"]),
        helper.make_node("Gather", ["shape", "one"], ["n"]),
        helper.make_node("Tile", ["tone", "n"], ["tones"]),
        helper.make_node("ReduceMean", ["style"], ["loudness"], keepdims=0),
        helper.make_node("Mul", ["tones", "loudness"], ["loud"]),
        *_shortened("loud", "speed", divides=True),
    ]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.INT64, [1, "n_tokens"]),
        helper.make_tensor_value_info("style", TensorProto.FLOAT, [1, 256]),
        helper.make_tensor_value_info("speed", TensorProto.FLOAT, [1]),
    ]
    _save(nodes, inputs, {"tone": tone, "one": np.array([1]), "zero": np.array([0])}, tmp_path / "kokoro-tiny.onnx")
    styles = {name: np.full((510, 1, 256), loudness, np.float32) for name, loudness in (("a", 0.2), ("b", 0.6))}
    with (tmp_path / "voices-tiny.bin").open("wb") as file:
        np.savez(file, **styles)
    return tmp_path


@pytest.fixture
def piper(tmp_path):
    """A second of a tone at half the usual speed: 400 Hz by the first speaker, and 800 Hz by the second."""
    tones = np.stack([_tone(hz, _PIPER_HZ, _PIPER_HZ) for hz in (400, 800)])
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, [1, "n"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("sid", TensorProto.INT64, [1]),
    ]
    nodes = [
        helper.make_node("Gather", ["tones", "sid"], ["one_tone"]),
        helper.make_node("Reshape", ["one_tone", "flat"], ["tone"]),
        helper.make_node("Gather", ["scales", "one"], ["length"]),  # noise, length, noise of lengths
        helper.make_node("Mul", ["length", "half"], ["share"]),
        *_shortened("tone", "share", divides=False),
    ]
    constants = {
        "tones": tones,
        "one": np.array([1]),
        "zero": np.array([0]),
        "flat": np.array([-1]),
        "half": np.float32([0.5]),
    }
    _save(nodes, inputs, constants, tmp_path / "tiny.onnx")
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


@pytest.mark.parametrize("name", ["kokoro", "piper", ESPEAK_NG])
def test_a_faster_voice_takes_less_time(name, request, monkeypatch, tmp_path):
    if name == ESPEAK_NG and shutil.which(ESPEAK_NG) is None:
        pytest.skip("espeak-ng is not installed")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    synthesiser = find_synthesiser(None if name == ESPEAK_NG else request.getfixturevalue(name))
    slow, fast = (len(synthesiser.say("banana", synthesiser.voices[0], speed)) for speed in (0.8, 1.25))
    assert 1.2 < slow / fast < 2.0


def test_a_text_without_sounds_is_refused(kokoro, piper):
    for path in (kokoro / "kokoro-tiny.onnx", None):
        synthesiser = find_synthesiser(kokoro)
        with pytest.raises(LearnError, match=rf"^{synthesiser.name} cannot say '_' with the voice "):
            synthesiser.say("_", synthesiser.voices[0], 1.0)
        if path:
            path.unlink()
    assert synthesiser.name == "piper"


def test_an_english_voice_refuses_other_scripts(kokoro):
    with pytest.raises(LearnError, match=r"^kokoro-onnx speaks English, and cannot read '日'; take a piper voice"):
        synthesise("日本", find_synthesiser(kokoro))


class Mumbler:
    """A synthesiser whose voices say a tone of half a second; some swallow it."""

    name = "mumbler"

    def __init__(self, n_voices, n_swallowing):
        self.voices = [f"v{n}" for n in range(n_voices)]
        self.said, self._swallowing = [], set(self.voices[:n_swallowing])

    def say(self, text, voice, speed):
        self.said.append(voice)
        return 0.5 * np.pad(_tone(300, RATE_HZ // (10 if voice in self._swallowing else 2), RATE_HZ), RATE_HZ // 2)


def test_voices_that_swallow_a_word_are_replaced():
    mumbler = Mumbler(100, 20)
    takes = synthesise("tick", mumbler)
    assert len({take.path for take in takes}) == N_TAKES
    assert len(mumbler.said) > N_TAKES
    assert sorted(mumbler.said) != mumbler.said  # not the first voices, which often are of one kind


def test_a_word_that_most_voices_swallow_is_refused():
    with pytest.raises(LearnError, match=r"^mumbler does not say 'a' as one word .* choose a word of two"):
        synthesise("a", Mumbler(100, 90))


def test_few_voices_speak_several_times():
    assert len({take.path for take in synthesise("tick", Mumbler(3, 0))}) == 3


def _no_voices(folder):
    with (folder / "voices-tiny.bin").open("wb") as file:
        np.savez(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "voices-tiny.bin").unlink(), r"kokoro-tiny\.onnx: needs voices\*\.bin beside it"),
        (lambda folder: (folder / "voices-tiny.bin").write_bytes(b"no"), r"voices-tiny\.bin: no voices of kokoro-onnx"),
        (lambda folder: (folder / "voices-tiny.bin").write_bytes(b""), r"voices-tiny\.bin: no voices of kokoro-onnx"),
        (_no_voices, r": the files of kokoro-onnx hold no voice; download them again"),
        (lambda folder: (folder / "kokoro-tiny.onnx").write_bytes(b"no"), r"kokoro-tiny\.onnx: ONNX Runtime cannot"),
        (lambda folder: (folder / "kokoro-tiny.onnx").unlink(), r"no voices of kokoro-onnx"),
    ],
)
def test_damaged_voices_of_kokoro_are_named(kokoro, damage, message):
    damage(kokoro)
    with pytest.raises((LearnError, ModelError), match=message):
        find_synthesiser(kokoro)


@pytest.mark.parametrize("text", ["{", '{"num_speakers": "x"}'])
def test_damaged_voices_of_piper_are_named(piper, text):
    (piper / "tiny.onnx.json").write_text(text)
    with pytest.raises(LearnError, match=r"tiny\.onnx\.json: piper cannot load this voice"):
        find_synthesiser(piper)


@pytest.mark.parametrize(
    ("absent", "message"), [("piper", "piper-tts"), ("piper.phoneme_ids", "piper.phoneme_ids, for piper-tts")]
)
def test_a_missing_package_is_named(piper, monkeypatch, absent, message):
    for module in [name for name in sys.modules if name.split(".")[0] == "piper"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(LearnError, match=rf"tiny\.onnx\.json: needs the package {message}: pip install piper-tts"):
        find_synthesiser(piper)


def _tone(hz, n_samples, rate_hz):
    return np.sin(2 * np.pi * hz * np.arange(n_samples) / rate_hz).astype(np.float32)


def _shortened(values, factor, divides):
    """Nodes that keep the first part of some values, as `audio`."""
    return [
        helper.make_node("Size", [values], ["size"]),
        helper.make_node("Cast", ["size"], ["n_float"], to=TensorProto.FLOAT),
        helper.make_node("Div" if divides else "Mul", ["n_float", factor], ["n_kept"]),
        helper.make_node("Cast", ["n_kept"], ["end"], to=TensorProto.INT64),
        helper.make_node("Slice", [values, "zero", "end"], ["audio"]),
    ]


def _save(nodes, inputs, constants, path):
    outputs = [helper.make_tensor_value_info("audio", TensorProto.FLOAT, None)]
    initializers = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "voice", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
