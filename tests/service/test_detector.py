"""What captures deliver becomes events, also while the configuration changes."""

import pytest

from kwsd.audio import Chunk
from kwsd.config import Config, StreamConfig
from kwsd.core.model import load_model
from kwsd.protocol.events import DetectionEvent
from kwsd.service.detector import Detector
from kwsd.sources.base import Up

DEAF = Config(streams={"default": StreamConfig(threshold=1.0)})


def heard(detector, samples, at=0):
    chunks = [("default", Chunk(samples[start : start + 800], start)) for start in range(at, len(samples), 800)]
    events = detector.process(chunks).events
    return [(event.label, event.end_seconds) for event in events if isinstance(event, DetectionEvent)]


def begun(model, config):
    detector = Detector(model, config)
    detector.process([("default", Up(16000, 0.0))])
    return detector


@pytest.fixture
def first(demo):
    """Three words, the first of which ends after two seconds."""
    return demo[: 8 * 16000]


@pytest.fixture
def middle(truth):
    """Of the first word, in samples."""
    return round((truth[0]["start_seconds"] + truth[0]["end_seconds"]) / 2 * 16000) // 800 * 800


@pytest.fixture
def wanted(model, first):
    """What is heard without a change."""
    detections = heard(begun(model, Config()), first)
    assert len(detections) == 3
    return detections


def test_other_thresholds_hold_from_the_middle_of_a_word(model, first, middle, wanted):
    detector = begun(model, DEAF)
    assert heard(detector, first[:middle]) == []
    detector.reload(model, Config())
    assert heard(detector, first, middle) == wanted


def test_another_model_fills_its_windows_first_and_the_clock_goes_on(model, first, middle, wanted):
    detector = begun(model, DEAF)
    assert heard(detector, first[:middle]) == []
    detector.reload(load_model(device="cpu"), Config())
    assert heard(detector, first, middle)[-2:] == [(label, pytest.approx(end, abs=0.15)) for label, end in wanted[1:]]


def test_of_two_swaps_the_last_one_holds(model, first, wanted):
    detector = begun(model, Config())
    detector.reload(model, DEAF)
    detector.reload(model, Config())
    assert heard(detector, first) == wanted
