"""Several microphones: one is unplugged and returns as another card."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import kwsd.sources.microphone
from kwsd.errors import SourceError
from kwsd.sources.microphone import Microphone


class PortAudioError(Exception):
    pass


class Machine:
    """Sound cards by name, each with its own number. PortAudio knows the cards that were present at its start."""

    def __init__(self, cards):
        self.cards = cards
        self.known = {}
        self.n_starts = 0

    def start(self):
        self.known = dict(self.cards)
        self.n_starts += 1

    def query(self, name, kind):
        if name not in self.known:
            raise ValueError(f"No input device matching {name!r}")
        return {"index": self.known[name], "max_input_channels": 1, "default_samplerate": 16000.0}

    def module(self):
        machine = self

        class InputStream:
            read_available = 160

            def __init__(self, device, **_):
                self._device = device

            def start(self):
                if self._device not in machine.cards.values():
                    raise PortAudioError("No such device")

            def read(self, n_samples):
                self.start()
                return np.full((n_samples, 1), 0.1, np.float32), False

            def abort(self, ignore_errors):
                pass

            close = abort

        return SimpleNamespace(
            InputStream=InputStream,
            PortAudioError=PortAudioError,
            query_devices=self.query,
            check_input_settings=lambda *_, **__: None,
            _exit_handler=lambda: None,
            _initialize=self.start,
            _terminate=lambda: None,
        )


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine({"kitchen": 1, "hall": 2})
    machine.start()
    monkeypatch.setitem(sys.modules, "sounddevice", machine.module())
    monkeypatch.setattr(kwsd.sources.microphone, "_CARDS", tmp_path / "cards")
    for name, value in (("_n_open", 0), ("_must_restart", False), ("_known_cards", ""), ("_must_end", False)):
        monkeypatch.setattr(Microphone, name, value)

    def plug(**cards):
        machine.cards = cards
        (tmp_path / "cards").write_text(str(cards))

    machine.plug = plug
    plug(kitchen=1, hall=2)
    return machine


def test_a_microphone_that_returns_as_another_card_is_found_while_others_are_open(machine):
    kitchen, hall = Microphone("kitchen"), Microphone("hall")
    in_kitchen, in_hall = kitchen.open().chunks, hall.open().chunks
    assert len(next(in_kitchen).samples) == len(next(in_hall).samples) == 160
    machine.plug(hall=2)
    with pytest.raises(SourceError, match="microphone kitchen: stopped"):
        next(in_kitchen)
    machine.plug(hall=2, kitchen=7)
    with pytest.raises(SourceError, match="microphone kitchen: cannot be opened"):
        kitchen.open()  # PortAudio still knows only the old card
    with pytest.raises(SourceError, match="microphone hall: reopening"):
        next(in_hall)
    in_hall, in_kitchen = hall.open().chunks, kitchen.open().chunks
    assert len(next(in_kitchen).samples) == len(next(in_hall).samples) == 160
    assert machine.n_starts == 2
    in_kitchen.close(), in_hall.close()


def test_a_missing_microphone_interrupts_the_others_once_for_each_change(machine):
    kitchen, hall = Microphone("kitchen"), Microphone("hall")
    in_kitchen, in_hall = kitchen.open().chunks, hall.open().chunks
    next(in_kitchen), next(in_hall)
    machine.plug(hall=2)
    with pytest.raises(SourceError):
        next(in_kitchen)
    with pytest.raises(SourceError):
        kitchen.open()
    with pytest.raises(SourceError, match="reopening"):
        next(in_hall)
    in_hall = hall.open().chunks
    for _ in range(20):
        with pytest.raises(SourceError, match="cannot be opened"):
            kitchen.open()
        next(in_hall)
    assert machine.n_starts == 2
    in_hall.close()
