"""A reload changes the model and the thresholds, or nothing; other keys wait for a restart."""

import asyncio
import logging
import signal
import subprocess
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

import kwsd.__main__
from kwsd.config import Config, StreamConfig
from kwsd.core.model import load_model
from kwsd.errors import ConfigError
from kwsd.service.credentials import Credentials
from kwsd.service.detector import Detector
from kwsd.service.reload import Reloader, Setup, _merge, load_setup
from kwsd.service.signals import Signals


def config(**streams):
    return Config(streams={name: StreamConfig(**values) for name, values in streams.items()})


def test_new_thresholds_keep_the_model_and_every_stream(model):
    old = Setup(config(hall={"source": "a.wav"}), model)
    new = Setup(config(hall={"source": "a.wav", "threshold": 0.5}), load_model(device="cpu"))
    merged, ignored = _merge(old, new)
    assert ignored == []
    assert merged.model is old.model  # the same card: the state of the streams stays valid
    assert merged.config.streams["hall"].threshold == 0.5


def test_another_card_brings_another_model(model):
    other = load_model(device="cpu", stride_frames=2)
    merged, ignored = _merge(Setup(config(hall={}), model), Setup(config(hall={}), other))
    assert (merged.model, ignored) == (other, [])


def test_other_keys_stay_and_are_named(model):
    old = Setup(config(hall={"source": "a.wav"}), model)
    changed = replace(config(hall={"source": "b.wav", "threshold": 0.5}), socket_mode="0600", silent_seconds=5.0)
    merged, ignored = _merge(old, Setup(changed, model))
    assert ignored == ["socket_mode", "silent_seconds", "the streams"]
    assert (merged.config.socket_mode, merged.config.silent_seconds) == ("0660", 30.0)
    assert merged.config.streams["hall"] == StreamConfig(source="a.wav", threshold=0.5)  # thresholds still change


def test_renamed_streams_keep_their_thresholds_until_the_restart(model):
    old = Setup(config(hall={"threshold": 0.5}, den={"threshold": 0.6}), model)
    merged, ignored = _merge(old, Setup(config(hall={"threshold": 0.9}, den2={"threshold": 0.6}), model))
    assert ignored == ["the streams"]
    assert merged.config.streams == old.config.streams


def test_a_threshold_for_a_keyword_that_the_model_lacks_is_refused():
    with pytest.raises(ConfigError, match=r"thresholds.stpo: unknown key; did you mean stop\?"):
        load_setup(lambda: config(hall={"thresholds": {"stpo": 0.5}}))


def run_reload(model, configure, caplog):
    setup = Setup(config(hall={"source": "a.wav"}), model)
    reloader = Reloader(configure, setup, Detector(model, setup.config), Credentials())
    with caplog.at_level(logging.INFO, "kwsd"):
        asyncio.run(reloader.reload())
    return reloader.setup, setup, caplog.text


def test_a_wrong_configuration_is_one_line_and_changes_nothing(model, caplog):
    def configure():
        raise ConfigError("kwsd.yaml: sorce: unknown key\nkwsd.yaml: pace: 'x' is not one of realtime, fast")

    now, before, log = run_reload(model, configure, caplog)
    assert now is before
    assert "reload: kwsd.yaml: sorce: unknown key; kwsd.yaml: pace:" in log
    assert log.count("\n") == 1


def test_a_defect_is_logged_with_its_traceback_and_changes_nothing(model, caplog):
    now, before, log = run_reload(model, lambda: 1 / 0, caplog)
    assert now is before
    assert "ZeroDivisionError" in log


def test_a_valid_configuration_is_used(model, caplog):
    now, _, log = run_reload(model, lambda: config(hall={"source": "a.wav", "threshold": 0.5}), caplog)
    assert now.config.streams["hall"].threshold == 0.5
    assert "reload: done" in log


async def signalled(*numbers):
    """The state of `Signals` after some signals to this process."""
    signals = Signals()
    for number in numbers:
        signal.raise_signal(number)
        await asyncio.sleep(0.01)
    outcome = signals.ended.result() if signals.ended.done() else None
    return outcome, signals.reload.is_set()


def test_the_first_signal_to_end_counts():
    assert asyncio.run(signalled(signal.SIGINT, signal.SIGTERM)) == ("SIGINT", False)


def test_many_sighups_request_one_reload(monkeypatch):
    monkeypatch.setattr("kwsd.service.signals._has_terminal", lambda: False)
    assert asyncio.run(signalled(*[signal.SIGHUP] * 20)) == (None, True)


def test_a_closed_terminal_ends_the_daemon(monkeypatch):
    answers = iter([True, False])
    monkeypatch.setattr("kwsd.service.signals._has_terminal", lambda: next(answers))
    assert asyncio.run(signalled(signal.SIGHUP)) == ("the terminal was closed", False)


def test_an_error_that_ends_the_daemon_is_raised():
    async def end():
        signals = Signals()
        signals.end(ConfigError("first"))
        signals.end("later")
        await signals.ended

    with pytest.raises(ConfigError, match="first"):
        asyncio.run(end())


@pytest.mark.parametrize(("n_reloads", "seconds"), [(1, 0.02), (2, 0.05), (40, 0.005)])
def test_a_daemon_ends_well_while_it_reloads(start_daemon, n_reloads, seconds):
    daemon, _ = start_daemon("--source", "-", stdin=subprocess.PIPE)
    for _ in range(n_reloads):
        daemon.send_signal(signal.SIGHUP)
        time.sleep(seconds)
    daemon.send_signal(signal.SIGTERM)
    daemon.send_signal(signal.SIGHUP)
    assert daemon.wait(10) == 0
    assert "Traceback" not in daemon.stderr.read()


@pytest.mark.parametrize(
    ("command", "is_terminal", "is_ignored"), [("run", False, True), ("run", True, False), ("spot", False, False)]
)
def test_a_service_that_is_still_starting_ignores_sighup(monkeypatch, command, is_terminal, is_ignored):
    """The command is replaced by one that returns what the signal would do."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        monkeypatch.setattr("sys.argv", ["kwsd", command])
        monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
        monkeypatch.setattr("kwsd.cli.main", lambda: signal.getsignal(signal.SIGHUP))
        assert kwsd.__main__.main() == (signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    finally:
        signal.signal(signal.SIGHUP, before)
