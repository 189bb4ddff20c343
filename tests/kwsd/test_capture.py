"""A live source drops the oldest and heals; a recording waits and ends."""

import time

import numpy as np
import pytest

import kwsd.capture
from kwsd.audio import Chunk
from kwsd.capture import Capture, ChunkQueue, Down, End, Up
from kwsd.errors import AudioError, SourceError
from kwsd.sources import Opened


def chunk(position, n=10):
    return Chunk(np.zeros(n, np.float32), position)


class FakeSource:
    """Plays a script: for each opening, chunks and then an error, or the end."""

    name = "fake"

    def __init__(self, is_live, *script):
        self.is_live, self._script = is_live, list(script)

    def open(self):
        step = self._script.pop(0)
        if isinstance(step, Exception):
            raise step
        return Opened(1000, self._chunks(step))

    def _chunks(self, step):
        for item in step:
            if isinstance(item, Exception):
                raise item
            yield item


def run(source):
    capture = Capture(source)
    capture.start()
    return list(capture.items())


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch):
    monkeypatch.setattr(kwsd.capture, "_RETRY_SECONDS", (0.01, 0.02))


def test_a_recording_is_delivered_whole_and_ends():
    chunks = [chunk(i * 10) for i in range(100)]
    items = run(FakeSource(False, chunks))
    assert items[0] == Up(1000, 0.0)
    assert [item.position for item in items[1:-1]] == [i * 10 for i in range(100)]
    assert items[-1] == End()


def test_a_recording_that_breaks_ends_with_its_error():
    error = AudioError("a.wav: damaged")
    assert run(FakeSource(False, [chunk(0), error]))[-1] == End(error)


def test_a_live_source_is_opened_again_until_it_works():
    gone = SourceError("gone")
    items = run(FakeSource(True, [chunk(0), gone], SourceError("still gone"), [chunk(0)]))
    kinds = [type(item) for item in items]
    assert kinds == [Up, Chunk, Down, Down, Up, Chunk, End]
    assert [item.retry_seconds for item in items if isinstance(item, Down)] == [0.01, 0.02]
    assert items[4].start_seconds >= 0.03  # the stream's clock went on while it was down


def test_a_defect_in_a_source_ends_the_capture_instead_of_leaving_it_deaf():
    defect = ZeroDivisionError()
    assert run(FakeSource(True, [chunk(0), defect]))[-1] == End(defect)


def test_a_source_that_was_never_there_is_an_error_at_once():
    with pytest.raises(SourceError, match="no such device"):
        Capture(FakeSource(True, SourceError("no such device"))).start()


def test_a_full_live_queue_drops_the_oldest_audio_but_no_news():
    queue = ChunkQueue(3, drops_oldest=True)
    queue.put(Up(1000, 0.0))
    for position in range(0, 100, 10):
        queue.put(chunk(position))
    assert queue.get() == Up(1000, 0.0)
    assert [queue.get().position for _ in range(2)] == [80, 90]


def test_stop_ends_a_capture_whose_queue_is_full():
    capture = Capture(FakeSource(False, [chunk(i) for i in range(1000)]))
    capture.start()
    time.sleep(0.05)
    capture.stop()
    assert list(capture.items()) == []
