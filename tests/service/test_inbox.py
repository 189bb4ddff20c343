"""The inbox: bounded queues between readers and the detector's thread. `test_capture.py` has it with sources."""

import threading

import numpy as np
import pytest

from kwsd.audio import Chunk
from kwsd.config import Config, StreamConfig
from kwsd.service.capture import make_captures
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
