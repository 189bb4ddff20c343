"""A live source drops the oldest audio and is opened again after a failure; a recording waits and ends."""

import threading
import time

import numpy as np
import pytest

import kwsd.service.capture
from kwsd.audio import Chunk
from kwsd.errors import AudioError, SourceError
from kwsd.service.capture import Capture
from kwsd.service.inbox import GATHER_SECONDS, Inbox
from kwsd.sources.base import Down, End, Opened, Up


def chunk(position, n=10, level=0.1):
    return Chunk(np.full(n, level, np.float32), position)


def silence(first, last):
    """Chunks of zeros."""
    return [chunk(position, level=0.0) for position in range(first, last, 10)]


class FakeSource:
    """Plays a script: each `open` raises an error, or delivers chunks and then an error or the end."""

    name = "fake"

    def __init__(self, is_live, *script):
        self.is_live = self.is_watched = is_live
        self._script = list(script)

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


def run(source, **options):
    inbox = Inbox()
    Capture(source, ["a"], inbox, **options).start()
    items = []
    while not items or not isinstance(items[-1], End):
        for stream, item in inbox.take():
            assert stream == "a"
            items.append(item)
    return items


@pytest.fixture(autouse=True)
def _short_back_off(monkeypatch):
    monkeypatch.setattr(kwsd.service.capture, "_RETRY_SECONDS", (0.01, 0.02))


def test_a_recording_is_delivered_completely_and_ends():
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
    assert items[4].start_seconds >= 0.03  # the stream's clock ran while the stream was down


def test_a_repeated_reason_is_reported_once():
    still = [SourceError("gone") for _ in range(5)]
    items = run(FakeSource(True, [chunk(0), SourceError("gone")], *still, [chunk(0), SourceError("gone")], [chunk(0)]))
    assert [type(item) for item in items] == [Up, Chunk, Down, Up, Chunk, Down, Up, Chunk, End]


def test_a_live_source_of_zeros_is_down_until_its_first_sound():
    """If it is opened again in vain, the capture waits longer for sound, and reports no `Up`."""
    first = [chunk(0), *silence(10, 200)]
    items = run(
        FakeSource(True, first, silence(0, 500), [*silence(0, 300), chunk(300), chunk(310)]), silent_seconds=0.1
    )
    assert [type(item) for item in items] == [Up, Chunk, *[Chunk] * 9, Down, Up, Chunk, Chunk, End]
    down, up = items[11], items[12]
    assert down.reason == "fake: delivers nothing but zeros; is it muted?"
    assert [item.position for item in items[13:15]] == [0, 10]
    assert up.start_seconds >= 0.3 + 0.03  # its silence, and both waits before it


def test_a_channel_of_zeros_is_down_while_the_other_channels_continue():
    """A device with a pulled cable delivers such a channel. The channel's clock runs on."""

    def two_channels(position):
        dead = 50 <= position < 300
        return Chunk(
            np.stack([np.full(10, 0.1), np.full(10, 0.0 if dead else 0.1)], axis=1, dtype=np.float32), position
        )

    source = FakeSource(True, [two_channels(position) for position in range(0, 400, 10)])
    inbox = Inbox()
    Capture(source, ["alive", "dead"], inbox, silent_seconds=0.1).start()
    items = {"alive": [], "dead": []}
    while not all(of and isinstance(of[-1], End) for of in items.values()):
        for stream, item in inbox.take():
            items[stream].append(item)
    assert [type(item) for item in items["alive"]] == [Up, *[Chunk] * 40, End]
    assert [type(item) for item in items["dead"]] == [Up, *[Chunk] * 14, Down, Up, *[Chunk] * 10, End]
    down, up, chunk = items["dead"][15:18]
    assert down.reason == "fake: this channel delivers nothing but zeros; is it muted?"
    assert up.start_seconds == pytest.approx(0.3)
    assert chunk.position == 0
    assert chunk.samples.shape == (10,)


def test_a_silent_channel_stays_down_when_its_device_is_opened_again():
    def two_channels(position):
        return Chunk(np.stack([np.full(10, 0.1), np.zeros(10)], axis=1).astype(np.float32), position)

    chunks = [two_channels(position) for position in range(0, 300, 10)]
    sound = Chunk(np.full((10, 2), 0.1, np.float32), 300)
    source = FakeSource(True, [*chunks, SourceError("unplugged")], [*chunks, sound])
    inbox, dead = Inbox(), []
    Capture(source, ["alive", "dead"], inbox, silent_seconds=0.1).start()
    while not dead or not isinstance(dead[-1], End):
        dead += [item for stream, item in inbox.take() if stream == "dead" and not isinstance(item, Chunk)]
    assert [type(item) for item in dead] == [Up, Down, Up, End]  # the second Up with the sound
    assert dead[2].start_seconds > 0.6


def test_after_a_sound_the_next_silence_is_reported_as_early_as_the_first():
    """After 0.1 s, although the capture waited twice as long in the silence before."""
    script = [[chunk(0), *silence(10, 200)], [*silence(0, 150), chunk(150), *silence(160, 500)], [chunk(0)]]
    items = run(FakeSource(True, *script), silent_seconds=0.1)
    assert [type(item) for item in items if not isinstance(item, Chunk)] == [Up, Down, Up, Down, Up, End]
    second = [type(item) for item in items[items.index(Down("fake: delivers nothing but zeros; is it muted?", 0.01)) :]]
    assert second[:13] == [Down, Up, Chunk, *[Chunk] * 9, Down]


def test_a_source_that_keeps_failing_at_once_is_retried_less_and_less_often(monkeypatch):
    monkeypatch.setattr(kwsd.service.capture, "_RETRY_SECONDS", (0.01, 0.02, 0.03))
    gone = SourceError("gone")
    steady = [chunk(position) for position in range(0, 10_030, 10)]
    items = run(FakeSource(True, [chunk(0), gone], [chunk(0), gone], [chunk(0), gone], [*steady, gone], [chunk(0)]))
    assert [item.retry_seconds for item in items if isinstance(item, Down)] == [0.01, 0.02, 0.03, 0.01]


def test_a_source_ahead_of_the_clock_does_not_set_it_back():
    """Five seconds of audio arrive at once, as from a device whose crystal is far too fast."""
    items = run(FakeSource(True, [chunk(0, n=5000), SourceError("gone")], [chunk(0)]))
    assert [item.start_seconds for item in items if isinstance(item, Up)] == [0.0, pytest.approx(5.01, abs=0.2)]


def test_a_recording_of_zeros_is_delivered_like_any_other():
    items = run(FakeSource(False, silence(0, 1000)), silent_seconds=0.1)
    assert [type(item) for item in items] == [Up, *[Chunk] * 100, End]


def test_a_source_can_come_back_with_another_rate():
    class Changing(FakeSource):
        rates = iter((1000, 2000))

        def open(self):
            return super().open()._replace(rate_hz=next(self.rates))

    items = run(Changing(True, [chunk(0), SourceError("gone")], [chunk(0)]))
    assert [item.rate_hz for item in items if isinstance(item, Up)] == [1000, 2000]


def test_a_defect_in_a_source_ends_the_capture():
    defect = ZeroDivisionError()
    assert run(FakeSource(True, [chunk(0), defect]))[-1] == End(defect)


def test_a_source_that_cannot_be_opened_at_start_is_an_error_at_once():
    with pytest.raises(SourceError, match="no such device"):
        Capture(FakeSource(True, SourceError("no such device")), ["a"], Inbox()).start()


def test_a_full_live_queue_drops_waiting_audio_but_no_up_or_down():
    inbox = Inbox(max_seconds=0.03)
    inbox.put("a", Up(1000, 0.0), waits=False)
    inbox.put("b", Up(1000, 0.0), waits=False)
    inbox.put("b", chunk(5), waits=False)
    for position in range(0, 100, 10):
        inbox.put("a", chunk(position), waits=False)
    items = inbox.take()
    assert items[0] == ("a", Up(1000, 0.0))
    heard = [(stream, item.position) for stream, item in items if isinstance(item, Chunk)]
    assert heard == [("a", 90), ("b", 5)]


@pytest.mark.parametrize("share", [0.95, 0.8, 0.5])
def test_stretches_of_audio_kept_under_overload_are_long_enough_for_words(share):
    """With a hole in every second of audio, no keyword would be detected, and no error would show why."""
    inbox, wholes, taken, due, end = Inbox(), [0], 0, 0.0, 0
    inbox.put("a", Up(1000, 0.0), waits=False)
    for number in range(3000):  # a minute, in chunks of 20 ms
        inbox.put("a", chunk(20 * number, 20), waits=False)
        due += share * 20
        while taken < due - 100:  # as much as can be processed meanwhile
            for _, item in inbox.take():
                if isinstance(item, Chunk):
                    wholes[-1:] = [wholes[-1] + 20] if item.position == end else [wholes[-1], 20]
                    end, taken = item.end, taken + 20
    assert sorted(wholes)[-2] >= 1900
    assert sum(wholes) >= 0.9 * share * 60_000 - 2000


def test_one_take_is_bounded_and_the_next_take_returns_the_rest():
    inbox = Inbox()
    inbox.put("a", Up(1000, 0.0), waits=False)
    for position in range(0, 300, 40):
        inbox.put("a", chunk(position, 40), waits=False)
    inbox.put("a", Down("gone", 1.0), waits=False)
    taken = [[item for _, item in inbox.take()] for _ in range(4)]
    assert [[getattr(item, "position", type(item)) for item in items] for items in taken] == [
        [Up, 0, 40], [80, 120], [160, 200], [240, 280, Down],
    ]  # fmt: skip


def test_the_inbox_knows_since_when_the_taken_audio_has_waited():
    inbox = Inbox()
    inbox.put("a", Up(1000, 0.0), waits=False)
    began = time.monotonic()
    for position in range(0, 300, 100):
        inbox.put("a", chunk(position, 100), waits=False)
    for _ in range(3):
        time.sleep(0.05)
        inbox.take()
        assert inbox.taken_since - began < 0.02
    assert inbox.waiting_seconds() == 0.0


def test_take_waits_for_all_streams_that_are_up_but_not_long():
    inbox = Inbox()
    for stream in "abc":
        inbox.put(stream, Up(1000, 0.0), waits=False)
    assert len(inbox.take()) == 3
    inbox.put("a", chunk(0), waits=False)
    late = threading.Timer(GATHER_SECONDS / 5, lambda: inbox.put("b", chunk(0), waits=False))
    late.start()
    assert [stream for stream, _ in inbox.take()] == ["a", "b"]  # without waiting longer for c
    late.join()
    for stream in "bc":
        inbox.put(stream, Down("gone", 1.0), waits=False)
    inbox.take()
    inbox.put("a", chunk(10), waits=False)
    started = time.monotonic()
    assert [stream for stream, _ in inbox.take()] == ["a"]
    assert time.monotonic() - started < GATHER_SECONDS / 2  # no other stream is up


def test_stop_ends_a_capture_whose_queue_is_full():
    inbox = Inbox()
    capture = Capture(FakeSource(False, [chunk(i) for i in range(1000)]), ["a"], inbox)
    capture.start()
    time.sleep(0.05)
    inbox.close()
    capture.stop()
    capture._thread.join(1)
    assert not capture._thread.is_alive()
    assert inbox.take() == []
