"""Event numbers have no gaps. A slow subscriber loses only its own events, and learns how many."""

import json
import re

import pytest

import kwsd.service.bus
from kwsd.protocol.events import DetectionEvent, Overrun, Scores
from kwsd.protocol.subscription import Since, Subscription
from kwsd.service.bus import HISTORY_EVENTS, QUEUE_EVENTS, Bus


def lines(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def publish(bus: Bus, n: int) -> None:
    for _ in range(n):
        bus.publish(Overrun(stream="default", lost_seconds=0.1))


class Told:
    """A subscriber that collects the data written to it."""

    def __init__(self, bus: Bus) -> None:
        self.data = b""
        self.subscriber = bus.subscribe(self.write)

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def lines(self) -> list[dict]:
        return lines(self.data)


def test_every_subscriber_gets_every_event_in_order():
    bus = Bus()
    told = [Told(bus) for _ in range(20)]
    publish(bus, 5)
    for one in told:
        assert [event["seq"] for event in one.lines] == [0, 1, 2, 3, 4]
        assert {event["boot_id"] for event in one.lines} == {bus.numbering.boot_id}
        assert all(event["time"].endswith("Z") for event in one.lines)


def test_a_slow_subscriber_learns_what_it_lost_and_no_other_loses_events():
    bus = Bus()
    slow, quick = Told(bus), Told(bus)
    slow.subscriber.hold()
    n_published = 3 * (QUEUE_EVENTS // 2)
    publish(bus, n_published)
    assert slow.data == b""
    slow.subscriber.release()
    assert [event["seq"] for event in quick.lines] == list(range(n_published))
    assert slow.lines[0] == {"type": "lagged", "n_lost": n_published - QUEUE_EVENTS}
    assert [event["seq"] for event in slow.lines[1:]] == list(range(n_published - QUEUE_EVENTS, n_published))
    assert bus.n_lagged == n_published - QUEUE_EVENTS
    publish(bus, 1)
    assert slow.lines[-1]["seq"] == n_published


def test_scores_are_neither_queued_for_a_slow_subscriber_nor_counted_as_lost():
    bus = Bus()
    slow = Told(bus)
    bus.resume(slow.subscriber, Subscription(scores=True))
    slow.subscriber.hold()
    for _ in range(QUEUE_EVENTS):
        bus.publish_scores(Scores(stream="hall", end_seconds=1.0, scores={"stop": 0.5}))
    publish(bus, QUEUE_EVENTS)
    slow.subscriber.release()
    assert [line["seq"] for line in slow.lines[1:]] == list(range(QUEUE_EVENTS))
    assert bus.n_lagged == 0


def test_an_unsubscribed_subscriber_gets_no_events():
    bus = Bus()
    gone = Told(bus)
    bus.unsubscribe(gone.subscriber)
    publish(bus, 1)
    assert gone.data == b""


def test_scores_are_sent_only_on_request_and_displace_no_events():
    bus = Bus()
    one, other = Told(bus), Told(bus)
    assert not bus.wants_scores
    bus.resume(one.subscriber, Subscription(labels=frozenset({"stop"}), scores=True))
    assert bus.wants_scores
    scores = Scores(stream="hall", end_seconds=1.0, scores={"stop": 0.5, "go": 0.1}, level_dbfs=-30.0)
    bus.publish_scores(scores)
    of_stop = {"type": "scores", "stream": "hall", "end_seconds": 1.0, "scores": {"stop": 0.5}, "level_dbfs": -30.0}
    assert one.lines[1:] == [of_stop]
    assert other.data == b""
    one.subscriber.hold()
    publish(bus, 10)
    for _ in range(QUEUE_EVENTS):
        bus.publish_scores(scores)
    publish(bus, 10)
    one.subscriber.release()
    assert [event["seq"] for event in one.lines if "seq" in event] == list(range(20))
    bus.unsubscribe(one.subscriber)
    assert not bus.wants_scores


def detection(label, stream="hall"):
    return DetectionEvent(stream=stream, label=label, score=0.9, start_seconds=0, end_seconds=1, loudness_dbfs=-20)


def resumed(bus, request):
    """Publish `yes` to a new subscriber, resume it with the request, publish `stop`; return what it gets."""

    told = Told(bus)
    told.subscriber.hold()
    bus.publish(detection("yes"))
    bus.resume(told.subscriber, request)
    bus.publish(detection("stop"))
    told.subscriber.release()
    return told.lines


def test_a_resumed_subscriber_gets_missed_events_exactly_once_and_in_order():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, 6)))
    assert told[0] == {"type": "subscribed", "next_seq": 7}
    assert [event["seq"] for event in told[1:]] == [7, 8, 9, 10, 11]


def test_a_filtered_subscriber_occasionally_gets_the_current_position(monkeypatch):
    bus = Bus()
    told = Told(bus)
    bus.resume(told.subscriber, Subscription(streams=frozenset({"hall"})))
    publish(bus, HISTORY_EVENTS + 10)  # none of them passes the filter
    known = told.lines[-1]
    assert known["type"] == "position"
    assert HISTORY_EVENTS - HISTORY_EVENTS // 8 < known["next_seq"] <= HISTORY_EVENTS + 10
    again = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, known["next_seq"] - 1)))
    assert "gap" not in [event["type"] for event in again]
    monkeypatch.setattr(kwsd.service.bus, "HISTORY_SECONDS", 0.0)
    publish(bus, 1)  # after HISTORY_SECONDS, one filtered event is enough for a position
    assert told.lines[-1] == {"type": "position", "next_seq": HISTORY_EVENTS + 13}


def test_queued_events_are_written_as_the_subscriber_reads():
    bus = Bus()
    written = []

    def write(data):
        written.append(data)
        subscription.hold()  # its buffer is full after each write

    subscription = bus.subscribe(write)
    subscription.hold()
    publish(bus, 1000)
    n_releases = 0
    while not written or lines(written[-1])[-1]["seq"] != 999:
        subscription.release()
        n_releases += 1
    assert n_releases == len(written) > 10
    assert [event["seq"] for event in lines(b"".join(written))] == list(range(1000))
    subscription.hold()
    publish(bus, 1000)
    subscription.finish()  # writes all at once: no event follows
    assert [event["seq"] for event in lines(b"".join(written))] == list(range(2000))


def test_without_since_no_event_is_sent_twice():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Subscription())
    assert told[0] == {"type": "subscribed", "next_seq": 11}
    assert [event["seq"] for event in told[1:]] == [11]


def test_events_that_are_no_longer_kept_are_a_gap(monkeypatch):
    bus = Bus()
    publish(bus, HISTORY_EVENTS + 10)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, 3)))
    assert told[1] == {"type": "gap", "reason": "older than the kept history", "n_lost": 7}  # 4 to 10, of 2011
    assert [event["seq"] for event in told[2:]] == list(range(11, HISTORY_EVENTS + 12))
    monkeypatch.setattr(kwsd.service.bus, "HISTORY_SECONDS", 0.0)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, HISTORY_EVENTS + 1)))
    assert told[1]["n_lost"] == 11
    assert len(told) == 3


def test_after_a_restart_a_resume_gets_a_gap_and_the_whole_history():
    bus = Bus()
    publish(bus, 3)
    told = resumed(bus, Subscription(since=Since("of an earlier run", 1000)))
    assert told[1] == {"type": "gap", "reason": "the daemon was restarted", "n_lost": None}
    assert [event["seq"] for event in told[2:]] == [0, 1, 2, 3, 4]


def test_only_requested_events_are_sent():
    bus = Bus()
    for label, stream in (("stop", "yard"), ("go", "hall"), ("stop", "hall")):
        bus.publish(detection(label, stream))
    bus.publish(Overrun(stream="hall", lost_seconds=1))
    bus.publish(Overrun(stream="yard", lost_seconds=1))
    since = Since(bus.numbering.boot_id, -1)
    told = resumed(bus, Subscription(labels=frozenset({"stop"}), streams=frozenset({"hall"}), since=since))
    assert [event["seq"] for event in told[1:]] == [2, 3, 6]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "not a line of JSON"),
        (b"[" * 5000, "not a line of JSON"),
        (b"[1,2]", "no request"),
        (b'{"type":"party"}', "type: 'party' is not one of subscribe"),
        (b'{"type":"subscribe","label":["a"]}', "label: unknown key; did you mean labels?"),
        (b'{"type":"subscribe","labels":"stop"}', "labels: 'stop' is not a list"),
        (b'{"type":"subscribe","streams":[1]}', "streams: 1 is not text"),
        (b'{"type":"subscribe","since":5}', "since: 5 is not keys and values"),
        (b'{"type":"subscribe","since":{"boot_id":"a","seq":true}}', "since.seq: True is not a whole number"),
        (b'{"type":"subscribe","since":{"boot_id":"a","seq":-2}}', "since.seq: -2 is not between -1"),
        (b'{"type":"subscribe","labels":5,"scores":1}', "labels: 5 is not a list; scores: 1 is not true or false"),
    ],
)
def test_the_error_for_an_invalid_request_names_the_mistake(line, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        Subscription.parse(line)


def test_a_valid_request_is_parsed():
    line = b'{"type":"subscribe","labels":["stop"],"streams":null,"since":{"boot_id":"a","seq":7}}'
    subscription = Subscription(labels=frozenset({"stop"}), since=Since("a", 7))
    assert Subscription.parse(line) == subscription
    assert Subscription.parse(subscription.to_json().encode()) == subscription


def test_an_output_that_fails_costs_the_others_nothing(caplog):
    bus, lines = Bus(), []

    def fail(line):
        raise TypeError("a defect")

    failing, other = bus.subscribe(fail), bus.subscribe(lines.append)
    for _ in range(2):
        bus.publish(Overrun(stream="hall", lost_seconds=0.1))
    assert len(lines) == 2
    assert caplog.text.count("an output failed") == 1
    assert bus.n_subscribers == 1
    failing = bus.subscribe(fail)
    for one in (failing, other):
        one.subscription = Subscription(scores=True)
    for _ in range(2):
        bus.publish_scores(Scores(stream="hall", end_seconds=1.0, scores={"stop": 0.5}))
    assert len(lines) == 4
    assert caplog.text.count("an output failed") == 2
