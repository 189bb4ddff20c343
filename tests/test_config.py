"""Configuration: all mistakes are reported at once, each with its path and a suggestion."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from kwsd.config import Config, StreamConfig, check_thresholds, load_config
from kwsd.errors import ConfigError


@pytest.fixture
def config_file(tmp_path):
    def write(text):
        path = tmp_path / "kwsd.yaml"
        path.write_text(text)
        return path

    return write


def test_defaults_without_a_file():
    assert load_config(None, {}) == Config()


def test_the_command_line_overrides_the_file(config_file):
    path = config_file("source: a.wav\npace: fast\npcm: {rate_hz: 8000}\nmodel: m.onnx\nthreshold: 1\n")
    config = load_config(path, {"source": "b.wav", "device": None})
    stream = config.streams["default"]
    assert (stream.source, stream.pace, stream.pcm.rate_hz) == ("b.wav", "fast", 8000)
    assert (config.model, stream.threshold, config.device) == (Path("m.onnx"), 1.0, "auto")


def test_a_threshold_on_the_command_line_applies_to_all_keywords(config_file):
    config = load_config(config_file("thresholds: {stop: 0.9}"), {"threshold": 0.5})
    assert config.streams["default"].chosen_thresholds(["stop", "go"]) == {"stop": 0.5, "go": 0.5}


def test_keywords_that_yaml_takes_for_booleans_stay_words(config_file):
    config = load_config(config_file("thresholds: {yes: 0.7, no: 0.8, on: 0.9, off: 0.6}"), {})
    assert config.streams["default"].thresholds == {"yes": 0.7, "no": 0.8, "on": 0.9, "off": 0.6}


def test_all_wrong_values_are_named_at_once(config_file):
    path = config_file("sorce: x\npace: fsat\nthreshold: high\nthresholds: {stop: loud}\npcm: {rate: 3}\nsocket: 5\n")
    with pytest.raises(ConfigError) as raised:
        load_config(path, {})
    lines = str(raised.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    for part in (
        "sorce: unknown key; did you mean source?",
        "pace: 'fsat' is not one of realtime, fast",
        "threshold: 'high' is not a number",
        "thresholds.stop: 'loud' is not a number",
        "pcm.rate: unknown key; did you mean rate_hz?",
        "socket: 5 is not a path",
    ):
        assert any(part in line for line in lines), part
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("threshold: 1.5", "not between 0 and 1"),
        ("threshold: 0.5\nsource: a.wav\nthreshold: 0.6", r"threshold: is used twice \(near line 1\)"),
        ("tcp: 127.0.0.1:7777\nmetrics: 127.0.0.1:7777", "127.0.0.1:7777 is used twice; each needs"),
        ("socket: /tmp/a\naudio: /tmp/a", "/tmp/a is used twice; each needs"),
        ('source: "-"\npcm: {channels: 2}\nchannel: 3', "channel: 3 does not exist; pcm.channels is 2"),
        ("thresholds: {stop: 0}", "not between 0 and 1"),
        ("pcm: {rate_hz: 5}", "not between 4000"),
        ("- a list", "must hold keys"),
        ("a: [", "not YAML"),
        ("pcm: 5", "pcm: 5 is not keys and values"),
        ("threshold: true", "is not a number"),
        ("threshold: 2024-13-41", "not YAML"),
        ("thresholds: {1: low}", "thresholds.1: 'low' is not a number"),
        ("1: 2", "1: unknown key"),
        ('socket: "a\\0b"', "is not a path"),
        ("[" * 5000, "not YAML"),
    ],
)
def test_a_single_mistake_is_named(config_file, text, reason):
    with pytest.raises(ConfigError, match=reason):
        load_config(config_file(text), {})


def test_text_that_begins_like_a_boolean_stays_text(config_file):
    config = load_config(config_file("source: falsetto.wav\nmodel: trueno.onnx"), {})
    assert (config.sources, str(config.model)) == (["falsetto.wav"], "trueno.onnx")


def test_huge_numbers_and_unknown_users_cause_no_traceback(config_file):
    with pytest.raises(ConfigError, match=r"threshold: 9+\.\.\.9+ is not a number"):
        load_config(config_file(f"threshold: {'9' * 400}"), {})
    assert load_config(config_file("audio: ~nosuchuser/a.sock"), {}).audio == "~nosuchuser/a.sock"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"absent.yaml: No such file"):
        load_config(tmp_path / "absent.yaml", {})


def test_a_threshold_for_an_unknown_keyword_is_refused():
    with pytest.raises(ConfigError, match=r"thresholds.stpo: unknown key; did you mean stop\?"):
        check_thresholds(Config(unnamed=StreamConfig(thresholds={"stpo": 0.5})), ["stop", "go"])


def test_streams_inherit_thresholds_from_the_top_level(config_file):
    text = """
thresholds: {stop: 0.9, go: 0.8}
audio: a.sock
streams:
  hall: {source: "microphone:2", channel: 2, thresholds: {go: 0.7}}
  yard: {source: network, threshold: 0.5}
"""
    config = load_config(config_file(text), {})
    assert list(config.streams) == ["hall", "yard"]
    hall, yard, unknown = (config.of_stream(name) for name in ("hall", "yard", "visitor"))
    assert (hall.source, hall.channel, hall.thresholds) == ("microphone:2", 2, {"stop": 0.9, "go": 0.7})
    assert (yard.source, yard.threshold, yard.thresholds) == ("network", 0.5, {})
    assert unknown.thresholds == {"stop": 0.9, "go": 0.8}
    assert list(load_config(config_file(text), {"source": "a.wav"}).streams) == ["default"]
    one = load_config(config_file(text), {"threshold": 0.4})
    assert {stream.threshold for stream in (*one.streams.values(), one.unnamed)} == {0.4}
    with pytest.raises(ConfigError, match=r"thresholds.go: unknown key; the keys are stop, no"):
        check_thresholds(config, ["stop", "no"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("streams: {a: {sorce: x}}", "streams.a.sorce: unknown key; did you mean source?"),
        ("streams: {a: {threshold: 2}}", "streams.a.threshold: 2 is not between 0 and 1"),
        ("streams: {a: {channel: 0}}", "streams.a.channel: 0 is not between 1 and 64"),
        ("source: x\nstreams: {a: {}}", "source: concerns one stream; move it below streams"),
        ("streams: {a: {source: network}}", "audio: missing; a source is network"),
        ("streams: {a: {source: '-'}, b: {source: '-'}}", "only one can be standard input"),
        ("streams: {a: 5}", "streams.a: 5 is not keys and values"),
        ("streams: {wyoming/a: {source: a.wav}}", "streams: 'wyoming/a' is no name: it is empty, or begins as those"),
        ("streams: {'': {source: a.wav}}", "streams: '' is no name"),
        ("stream: wyoming/a", "streams: 'wyoming/a' is no name"),
    ],
)
def test_a_mistake_in_a_stream_is_named_with_its_path(config_file, text, reason):
    with pytest.raises(ConfigError, match=re.escape(reason)):
        load_config(config_file(text), {})


def test_a_pace_on_the_command_line_applies_to_every_stream(config_file):
    config = load_config(config_file("streams: {a: {source: a.wav}, b: {source: b.wav}}"), {"pace": "fast"})
    assert {stream.pace for stream in config.streams.values()} == {"fast"}


def test_an_error_in_an_option_does_not_name_the_file(config_file):
    with pytest.raises(ConfigError, match=r"^--threshold: 2 is not between 0 and 1$"):
        load_config(config_file("threshold: 0.5"), {"threshold": 2.0})


def test_yaml_aliases_that_multiply_give_a_short_message(config_file):
    text = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijklmnopqrstuvwxyz"))
    with pytest.raises(ConfigError) as raised:
        load_config(config_file(f"{text}thresholds: *z\nstream: *z\n"), {})
    assert len(str(raised.value)) < 20_000


def test_the_file_is_utf8_with_or_without_a_byte_order_mark(tmp_path):
    for encoding in ("utf-8", "utf-8-sig"):
        path = tmp_path / f"{encoding}.yaml"
        path.write_text("stream: Küche", encoding=encoding)
        assert list(load_config(path, {}).streams) == ["Küche"]
