"""Which streams are deaf (get no audio), and when a restart would help."""

import pytest

from kwsd.config import Config, StreamConfig
from kwsd.service.capture import Capture
from kwsd.service.detector import Detector
from kwsd.service.health import DEAF_SECONDS, Health
from kwsd.service.inbox import Inbox
from kwsd.sources.base import Up


class Nothing:
    name, is_live = "nothing", True


@pytest.fixture
def parts(model):
    config = Config(streams={"hall": StreamConfig(), "yard": StreamConfig(source="network")})
    detector, inbox = Detector(model, config), Inbox()
    capture = Capture(Nothing(), ["hall"], inbox)
    return detector, inbox, capture, Health(detector, inbox, ["hall", "yard"], {"hall": capture}, 0.0)


def hear(detector, *streams):
    for stream in streams:
        detector.process([(stream, Up(16000, 0.0))])
        detector.figures[stream].heard_seconds += 1


def test_all_streams_are_deaf_at_first(parts):
    detector, _, _, health = parts
    assert health.deaf(0.0) == {"hall": "no audio yet", "yard": "no audio yet"}
    assert not health.has_heard_all
    hear(detector, "hall")
    health.look(1.0)
    assert health.has_heard_all  # all sources that kwsd reads itself
    assert health.deaf(1.0) == {"yard": "no audio yet"}


def test_only_a_deaf_source_that_kwsd_reads_itself_counts_as_stuck(parts):
    detector, _, _, health = parts
    hear(detector, "hall", "yard")
    health.look(0.0)
    later = DEAF_SECONDS + 1
    assert health.deaf(later) == {"hall": "no audio for 11 s", "yard": "no audio for 11 s"}
    assert health.is_stuck(later)
    detector.figures["hall"].heard_seconds += 1
    health.look(later)
    assert health.deaf(later) == {"yard": "no audio for 11 s"}
    assert not health.is_stuck(later)


def test_a_source_that_is_down_counts_as_stuck_only_if_opening_it_hangs(parts):
    _, _, capture, health = parts
    assert not health.is_stuck(1000.0)
    capture.opening_since = 900.0
    assert not health.is_stuck(950.0)
    assert health.is_stuck(961.0)


def test_audio_that_is_not_taken_counts_as_stuck(parts, monkeypatch):
    _, inbox, _, health = parts
    now = 100.0
    monkeypatch.setattr("kwsd.service.capture.time.monotonic", lambda: now)
    inbox.put("yard", Up(16000, 0.0), waits=False)
    assert not health.is_stuck(now)
    now += DEAF_SECONDS + 1
    assert health.is_stuck(now)
