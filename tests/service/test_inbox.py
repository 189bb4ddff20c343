"""The inbox: bounded queues between readers and the detector's thread; and which streams are deaf."""

import threading

import numpy as np
import pytest

from kwsd.audio import Chunk
from kwsd.config import Config, StreamConfig
from kwsd.service.capture import Capture, make_captures
from kwsd.service.detector import Detector
from kwsd.service.health import DEAF_SECONDS, Health
from kwsd.service.inbox import Inbox
from kwsd.sources.base import Down, End, Up


def chunk(position, n=1600):
    return Chunk(np.zeros(n, np.float32), position)


@pytest.fixture
def inbox():
    """An inbox with one stream, which is up; at most half a second may wait."""
    inbox = Inbox(max_seconds=0.5)
    inbox.put("a", Up(16000, 0.0), waits=False)
    assert inbox.take() == [("a", Up(16000, 0.0))]
    return inbox


def test_items_of_a_stream_come_in_their_order(inbox):
    items = [chunk(0), Down("x", 1.0), Up(16000, 1.0), chunk(0), End()]
    for item in items:
        inbox.put("a", item, waits=False)
    taken = []
    while len(taken) < len(items):
        taken += [item for _, item in inbox.take()]
    assert taken == items


def test_a_full_queue_drops_its_audio_and_the_positions_show_how_much(inbox):
    for n in range(8):
        inbox.put("a", chunk(1600 * n), waits=False)
    positions = []
    while inbox.waiting_seconds():
        positions += [item.position for _, item in inbox.take()]
    assert positions == [8000, 9600, 11200]  # five chunks filled it, and were dropped together


def test_audio_that_is_lost_at_an_end_is_reported_before_it(inbox):
    for item in (*(chunk(1600 * n) for n in range(4)), End(), Up(8000, 1.0)):
        inbox.put("a", item, waits=False)
    inbox.put("a", chunk(0), waits=False)  # the bound of 8 kHz is lower
    taken = []
    while inbox.waiting_seconds():
        taken += [item for _, item in inbox.take()]
    assert [type(item) for item in taken] == [Chunk, End, Up, Chunk]
    assert (len(taken[0].samples), taken[0].position) == (0, 6400)


def test_a_reader_that_may_wait_waits_until_there_is_room(inbox):
    for n in range(5):
        inbox.put("a", chunk(1600 * n), waits=False)
    assert inbox.is_full("a")
    reader = threading.Thread(target=inbox.put, args=("a", chunk(8000), True), daemon=True)
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    positions = [item.position for _, item in inbox.take()]
    reader.join(5)
    while inbox.waiting_seconds():
        positions += [item.position for _, item in inbox.take()]
    assert positions == [0, 1600, 3200, 4800, 6400, 8000]


def test_closing_releases_everyone(inbox):
    taken = []
    taker = threading.Thread(target=lambda: taken.append(inbox.take()), daemon=True)
    taker.start()
    inbox.close()
    taker.join(5)
    assert taken == [[]]
    inbox.put("a", chunk(0), waits=True)  # returns, although nothing is ever taken


def test_nothing_waits_at_first():
    assert Inbox().waiting_seconds() == 0.0
    assert not Inbox().is_full("a")


def test_streams_of_one_microphone_share_a_capture_and_recordings_do_not():
    sources = {"a": "microphone:2", "b": "microphone:2", "c": "x.wav", "d": "x.wav", "e": "network"}
    config = Config(streams={name: StreamConfig(source=source) for name, source in sources.items()})
    captures = make_captures(config, Inbox())
    assert list(captures) == ["a", "b", "c", "d"]
    assert captures["a"] is captures["b"]
    assert captures["c"] is not captures["d"]
    assert [captures[name].name for name in "ac"] == ["microphone 2", "x.wav"]


class Nothing:
    name, is_live, is_watched = "nothing", True, True


@pytest.fixture
def parts(model):
    config = Config(streams={"hall": StreamConfig(), "yard": StreamConfig(source="network")})
    detector, inbox = Detector(model, config), Inbox()
    capture = Capture(Nothing(), ["hall"], inbox)
    health = Health(detector, inbox, ["hall", "yard"], {"hall": capture}, 0.0)
    health.is_listening = True
    return detector, inbox, capture, health


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


def test_a_pipe_that_pauses_does_not_count_as_stuck(parts, monkeypatch):
    detector, _, _, health = parts
    hear(detector, "hall", "yard")
    health.look(0.0)
    assert health.is_stuck(DEAF_SECONDS + 1)
    monkeypatch.setattr(Nothing, "is_live", False)
    assert not health.is_stuck(DEAF_SECONDS + 1)
    assert "hall" in health.deaf(DEAF_SECONDS + 1)


def test_a_source_that_is_down_counts_as_stuck_only_if_opening_it_hangs(parts):
    _, _, capture, health = parts
    assert not health.is_stuck(1000.0)
    capture.opening_since = 900.0
    assert not health.is_stuck(950.0)
    assert health.is_stuck(961.0)


def test_a_source_that_has_just_come_back_is_neither_stuck_nor_deaf(parts):
    detector, _, _, health = parts
    hear(detector, "hall", "yard")
    health.look(0.0)
    detector.process([("hall", Down("unplugged", 1.0))])
    health.look(100.0)
    detector.process([("hall", Up(16000, 100.5))])
    assert not health.is_stuck(100.5)
    assert "hall" not in health.deaf(100.5)


def test_audio_that_is_not_taken_counts_as_stuck(parts, monkeypatch):
    _, inbox, _, health = parts
    now = 100.0
    monkeypatch.setattr("kwsd.service.capture.time.monotonic", lambda: now)
    inbox.put("yard", Up(16000, 0.0), waits=False)
    assert not health.is_stuck(now)
    now += DEAF_SECONDS + 1
    assert health.is_stuck(now)


def test_a_take_has_few_ends_and_every_stream_gets_its_turn():
    inbox = Inbox()
    for n in range(600):
        inbox.put(str(n), Up(16000, 0.0), waits=False)
        inbox.put(str(n), chunk(0), waits=False)
        inbox.put(str(n), End(), waits=False)
    taken = inbox.take()
    assert [item for _, item in taken[:512]] == [Up(16000, 0.0)] * 512  # first items first
    assert sum(isinstance(item, End) for _, item in taken) == 8
    n_takes = 1
    while sum(isinstance(item, End) for _, item in taken) < 600:
        taken += inbox.take()
        n_takes += 1
    assert len(taken) == 1800
    assert n_takes <= 80
