"""Each part of `kwsd check` is fine, or has one line that says what to do."""

import socket

import numpy as np
import pytest

from kwsd.commands.check import check, heard
from kwsd.config import ClipsConfig, Config, MqttConfig, StreamConfig
from kwsd.errors import ConfigError
from support import DEMO, free_port


@pytest.fixture
def lines(tmp_path):
    """Run the check; returns its lines by part."""

    def lines(**keys):
        keys = {"socket": tmp_path / "k.sock", "streams": {"a": StreamConfig(source=str(DEMO))}} | keys
        return {
            line.partition(": ")[0]: (fine, line.partition(": ")[2]) for fine, line in check(lambda: Config(**keys))
        }

    return lines


def test_a_right_configuration_is_fine_in_every_part(lines, tmp_path):
    found = lines()
    assert list(found) == ["configuration", "model", "audio", "socket"]
    assert all(fine for fine, _ in found.values())
    assert found["audio"][1].startswith(f"{DEMO}, 16000 Hz, ")
    assert found["socket"][1] == f"{tmp_path / 'k.sock'} is free"
    assert not (tmp_path / "k.sock").exists()


def test_a_wrong_configuration_is_all_that_is_reported():
    def load():
        raise ConfigError("a: wrong\nb: wrong too")

    assert list(check(load)) == [(False, "configuration: a: wrong"), (False, "configuration: b: wrong too")]


def test_a_missing_recording_is_named_and_the_other_parts_are_checked(lines):
    found = lines(
        streams={"a": StreamConfig(source="absent.wav"), "b": StreamConfig(source="network")}, audio="/nope/a"
    )
    assert found["audio"] == (False, "absent.wav: No such file or directory")
    assert found["audio socket"][0] is False
    assert found["socket"][0] is True


def test_standard_input_is_described_and_not_read(lines):
    fine, line = lines(streams={"a": StreamConfig(source="-")})["audio"]
    assert fine
    assert line == "standard input, s16le, 16000 Hz, 1 channels (not read)"


def test_a_served_socket_is_said(lines, tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "k.sock"))
        server.listen()
        assert lines()["socket"] == (True, f"{tmp_path / 'k.sock'}, a kwsd is serving it now")


def test_ports_in_use_are_named(lines):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        found = lines(tcp=address, metrics=address, audio=address)
    for part in ("tcp", "metrics", "audio socket"):
        fine, line = found[part]
        assert not fine
        assert line.startswith(f"{address}: cannot be bound")


def test_a_token_and_its_mistakes(lines, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o600)
    address = f"127.0.0.1:{free_port()}"
    assert lines(tcp=address, token_file=token)["tcp"] == (True, f"{address}, with a token")
    token.write_text("short")
    fine, line = lines(tcp=address, token_file=token)["tcp"]
    assert not fine
    assert "too short for a token" in line


def test_a_token_without_tcp_is_a_wrong_configuration(lines, tmp_path):
    assert list(lines(token_file=tmp_path / "token")) == ["configuration"]


def test_clips_need_a_folder_that_exists(lines, tmp_path):
    assert lines(clips=ClipsConfig(tmp_path))["clips"] == (True, f"kept in {tmp_path}")
    fine, line = lines(clips=ClipsConfig(tmp_path / "absent"))["clips"]
    assert not fine
    assert "create this folder" in line
    assert list(tmp_path.iterdir()) == []


def test_metrics_without_their_package_say_what_to_install(lines, monkeypatch):
    monkeypatch.setattr("kwsd.commands.check.find_spec", lambda name: None)
    fine, line = lines(metrics=f"127.0.0.1:{free_port()}")["metrics"]
    assert not fine
    assert "install kwsd[metrics]" in line


def test_an_unknown_keyword_is_found_with_the_model(lines):
    streams = {"a": StreamConfig(source=str(DEMO), thresholds={"stpo": 0.5})}
    assert lines(streams=streams)["model"] == (False, "streams.a.thresholds.stpo: unknown key; did you mean stop?")


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.zeros(16000), "-120 dBFS in 1.0 s: silent; is it muted, or unplugged?"),
        (np.full(8000, 0.5), "-6 dBFS in 0.5 s: silent; is it muted, or unplugged?"),
        (np.sin(np.arange(16000)) * 0.1, "-23 dBFS in 1.0 s"),
        (np.clip(np.sin(np.arange(16000)) * 3, -1, 1), "-1 dBFS in 1.0 s: too loud, it clips; turn its gain down"),
    ],
)
def test_a_source_that_is_silent_or_clips_is_named(samples, said):
    assert heard(samples.astype(np.float32), 16000) == said


def test_the_outputs_are_checked_as_the_daemon_would_use_them(lines, tmp_path):
    token = tmp_path / "token"
    token.write_text("correct horse battery staple")
    token.chmod(0o644)
    port = free_port()
    keys = {"http": f"127.0.0.1:{port}", "wyoming": f"tcp://127.0.0.1:{free_port()}", "token_file": token}
    found = lines(**keys)
    assert found["http"] == (False, f"{token}: every user can read the token; chmod o-r it")
    assert found["wyoming"][0]
    token.chmod(0o600)
    assert lines(**keys)["http"] == (True, f"127.0.0.1:{port}, with a token")


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        ("secret", 0o644, "every user can read the broker's password; chmod o-r it"),
        ("", 0o600, "is empty; it must hold the broker's password"),
        (None, 0, "No such file or directory; it must hold the broker's password"),
        ("secret", 0o600, "is it the right broker, user and password?"),  # nothing listens there
    ],
    ids=["public", "empty", "missing", "no broker"],
)
def test_a_broker_that_cannot_be_used_is_reported(lines, tmp_path, content, mode, reason):
    path = tmp_path / "password"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    mqtt = MqttConfig(host="127.0.0.1", port=free_port(), username="me", password_file=path)
    fine, line = lines(mqtt=mqtt)["mqtt"]
    assert not fine
    assert line.endswith(reason)
