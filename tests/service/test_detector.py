"""The detector turns chunks into events, also while the configuration is reloaded."""

import numpy as np
import pytest

from kwsd.audio import Chunk
from kwsd.config import Config, StreamConfig
from kwsd.core.model import load_model
from kwsd.protocol.events import DetectionEvent, NearMiss, Overrun, Scores, SourceDown
from kwsd.service.detector import Detector, Ended, Extras
from kwsd.sources.base import Down, End, Up

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
    """Three words; the first ends after two seconds."""
    return demo[: 8 * 16000]


@pytest.fixture
def middle(truth):
    """The middle of the first word, in samples."""
    return round((truth[0]["start_seconds"] + truth[0]["end_seconds"]) / 2 * 16000) // 800 * 800


@pytest.fixture
def wanted(model, first):
    """The detections without a reload."""
    detections = heard(begun(model, Config()), first)
    assert len(detections) == 3
    return detections


def test_reloaded_thresholds_apply_from_the_middle_of_a_word(model, first, middle, wanted):
    detector = begun(model, DEAF)
    assert heard(detector, first[:middle]) == []
    detector.reload(model, Config())
    assert heard(detector, first, middle) == wanted


def test_a_reloaded_model_first_fills_its_window_and_keeps_the_sample_clock(model, first, middle, wanted):
    detector = begun(model, DEAF)
    assert heard(detector, first[:middle]) == []
    detector.reload(load_model(device="cpu"), Config())
    assert heard(detector, first, middle)[-2:] == [(label, pytest.approx(end, abs=0.15)) for label, end in wanted[1:]]


def test_the_last_of_two_reloads_applies(model, first, wanted):
    detector = begun(model, Config())
    detector.reload(model, DEAF)
    detector.reload(model, Config())
    assert heard(detector, first) == wanted


def events_of(detector, *items, **options):
    return detector.process([("default", item) for item in items], **options).events


def chunks_of(samples, at=0):
    return [Chunk(samples[start : start + 1600], at + start) for start in range(0, len(samples), 1600)]


def labels(events, kind):
    return [event.label for event in events if isinstance(event, kind)]


def test_near_misses_come_only_if_wanted_and_not_where_a_word_was_detected(model, first):
    deaf = Config(streams={"default": StreamConfig(threshold=0.999)})
    chunks, wanted = [*chunks_of(first), Chunk(np.zeros(16000, np.float32), len(first))], Extras(near_misses=True)
    events = events_of(begun(model, deaf), *chunks, extras=wanted)
    assert labels(events, NearMiss) == ["down", "stop"]  # "on" stays farther away
    assert not labels(events, DetectionEvent)
    assert all(0.99 < near.score < near.threshold == 0.999 for near in events)
    assert all(near.end_seconds - near.start_seconds == pytest.approx(1.0, abs=0.05) for near in events)
    assert not labels(events_of(begun(model, deaf), *chunks), NearMiss)
    events = events_of(begun(model, Config()), *chunks, extras=wanted)
    assert labels(events, DetectionEvent) == ["down", "on", "stop"]
    assert not labels(events, NearMiss)


def test_a_muted_stream_hears_silence_and_goes_on_afterwards(model, first):
    detector = begun(model, Config())
    detector.muted = frozenset({"default"})
    output = detector.process([("default", chunk) for chunk in chunks_of(first)])
    assert output.events == []
    assert not any(piece.samples.any() for piece in output.audio)
    detector.muted = frozenset()
    events = events_of(detector, *chunks_of(first, at=len(first)))
    assert labels(events, DetectionEvent) == ["down", "on", "stop"]
    assert events[0].end_seconds > len(first) / 16000
    assert detector.figures["default"].heard_seconds == pytest.approx(2 * len(first) / 16000)


def test_scores_and_detections_come_in_the_order_of_time(model, first):
    events = events_of(begun(model, Config()), *chunks_of(first), extras=Extras(scores=True))
    times = [event.end_seconds for event in events]
    assert times == sorted(times)
    for place, event in enumerate(events):
        if isinstance(event, DetectionEvent):
            before = events[place - 1]
            assert isinstance(before, Scores)
            assert (before.end_seconds, before.scores[event.label]) == (event.end_seconds, event.score)
    assert sum(isinstance(event, DetectionEvent) for event in events) == 3


def test_without_a_request_there_are_no_scores(model, first):
    assert not any(isinstance(event, Scores) for event in events_of(begun(model, Config()), Chunk(first, 0)))


def test_a_jump_in_the_positions_is_lost_audio(model):
    detector = begun(model, Config())
    silence = np.zeros(1600, np.float32)
    assert events_of(detector, Chunk(silence, 0), Chunk(silence, 1600)) == []
    assert events_of(detector, Chunk(silence, 8000)) == [Overrun(stream="default", lost_seconds=0.3)]
    figures = detector.figures["default"]
    assert (figures.heard_seconds, figures.lost_seconds) == pytest.approx((0.3, 0.3))


def test_no_word_is_detected_across_lost_audio(model, first, wanted, truth):
    cut = round((truth[0]["start_seconds"] + truth[0]["end_seconds"]) / 2 * 16000)
    halves = Chunk(first[:cut], 0), Chunk(first[cut:], cut + 16000)
    labels = [event.label for event in events_of(begun(model, Config()), *halves) if isinstance(event, DetectionEvent)]
    assert labels == [label for label, _ in wanted[1:]]


def test_an_ended_source_flushes_its_last_word_and_a_broken_one_does_not(model, demo, truth):
    word = demo[: round((truth[0]["end_seconds"] + 0.05) * 16000)]
    ended = events_of(begun(model, Config()), Chunk(word, 0), End())
    broken = events_of(begun(model, Config()), Chunk(word, 0), Down("unplugged", 0.5))
    assert [event.type for event in ended] == ["detection", "source_down"]
    assert broken == [SourceDown(stream="default", reason="unplugged", retry_seconds=0.5)]


def test_processed_audio_is_returned_with_its_stream_time(model, first):
    detector = Detector(model, Config())
    items = [("a", Up(8000, 5.0)), ("a", Chunk(first[:800], 0)), ("a", Chunk(first[800:1600], 800)), ("a", End())]
    pieces = detector.process(items).audio
    assert [(one.stream, one.rate_hz, one.seconds) for one in pieces[:2]] == [("a", 8000, 5.0), ("a", 8000, 5.1)]
    assert pieces[2] == Ended("a")


def test_a_stream_that_is_not_configured_leaves_only_its_seconds(model):
    detector = Detector(model, Config())
    detector.process([("guest", Up(16000, 0.0)), ("guest", Chunk(np.zeros(16000, np.float32), 0)), ("guest", End())])
    assert "guest" not in detector.figures
    assert detector.heard_seconds == 1.0


def test_audio_of_a_stream_that_is_not_up_is_ignored(model):
    output = Detector(model, Config()).process([("ghost", Chunk(np.zeros(1600, np.float32), 0))])
    assert (output.events, output.audio) == ([], [])
