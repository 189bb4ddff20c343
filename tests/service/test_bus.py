"""Numbers without gaps; a slow subscriber loses only its own events, and knows how many."""

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
    """A subscriber that keeps what is written to it."""

    def __init__(self, bus: Bus) -> None:
        self.data = b""
        self.subscriber = bus.subscribe(self.write)

    def write(self, data: bytes) -> None:
        self.data += data

    @property
    def lines(self) -> list[dict]:
        return lines(self.data)


def test_everybody_gets_every_event_in_order():
    bus = Bus()
    told = [Told(bus) for _ in range(20)]
    publish(bus, 5)
    for one in told:
        assert [event["seq"] for event in one.lines] == [0, 1, 2, 3, 4]
        assert {event["boot_id"] for event in one.lines} == {bus.numbering.boot_id}
        assert all(event["time"].endswith("Z") for event in one.lines)


def test_a_slow_subscriber_is_told_what_it_lost_and_nobody_else_loses():
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


def test_scores_are_neither_kept_for_who_does_not_read_nor_counted_as_lost():
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


def test_who_has_left_gets_nothing():
    bus = Bus()
    gone = Told(bus)
    bus.unsubscribe(gone.subscriber)
    publish(bus, 1)
    assert gone.data == b""


def test_scores_go_to_those_who_ask_and_cost_nobody_an_event():
    bus = Bus()
    one, other = Told(bus), Told(bus)
    assert not bus.wants_scores
    bus.resume(one.subscriber, Subscription(labels=frozenset({"stop"}), scores=True))
    assert bus.wants_scores
    scores = Scores(stream="hall", end_seconds=1.0, scores={"stop": 0.5, "go": 0.1})
    bus.publish_scores(scores)
    assert one.lines[1:] == [{"type": "scores", "stream": "hall", "end_seconds": 1.0, "scores": {"stop": 0.5}}]
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
    """What a subscriber is told that asks for something, after a word that it had not asked for."""

    told = Told(bus)
    told.subscriber.hold()
    bus.publish(detection("yes"))
    bus.resume(told.subscriber, request)
    bus.publish(detection("stop"))
    told.subscriber.release()
    return told.lines


def test_who_was_away_is_told_what_it_missed_exactly_once_and_in_order():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, 6)))
    assert told[0] == {"type": "subscribed", "next_seq": 7}
    assert [event["seq"] for event in told[1:]] == [7, 8, 9, 10, 11]


def test_who_wants_little_is_told_how_far_the_numbers_are(monkeypatch):
    bus = Bus()
    told = Told(bus)
    bus.resume(told.subscriber, Subscription(streams=frozenset({"hall"})))
    publish(bus, HISTORY_EVENTS + 10)  # none of them for this one
    known = told.lines[-1]
    assert known["type"] == "position"
    assert HISTORY_EVENTS - HISTORY_EVENTS // 8 < known["next_seq"] <= HISTORY_EVENTS + 10
    again = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, known["next_seq"] - 1)))
    assert "gap" not in [event["type"] for event in again]
    monkeypatch.setattr(kwsd.service.bus, "HISTORY_SECONDS", 0.0)
    publish(bus, 1)  # after long enough, the first that is not for it says so too
    assert told.lines[-1] == {"type": "position", "next_seq": HISTORY_EVENTS + 13}


def test_what_has_waited_is_written_as_it_is_read():
    bus = Bus()
    written = []

    def write(data):
        written.append(data)
        subscription.hold()  # its buffer is full after each

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
    subscription.finish()  # all at once: nothing comes after it
    assert [event["seq"] for event in lines(b"".join(written))] == list(range(2000))


def test_without_since_nothing_is_told_twice():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Subscription())
    assert told[0] == {"type": "subscribed", "next_seq": 11}
    assert [event["seq"] for event in told[1:]] == [11]


def test_what_is_gone_is_a_gap(monkeypatch):
    bus = Bus()
    publish(bus, HISTORY_EVENTS + 10)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, 3)))
    assert told[1] == {"type": "gap", "reason": "older than the kept history", "n_lost": 7}  # 4 to 10, of 2011
    assert [event["seq"] for event in told[2:]] == list(range(11, HISTORY_EVENTS + 12))
    monkeypatch.setattr(kwsd.service.bus, "HISTORY_SECONDS", 0.0)
    told = resumed(bus, Subscription(since=Since(bus.numbering.boot_id, HISTORY_EVENTS + 1)))
    assert told[1]["n_lost"] == 11
    assert len(told) == 3


def test_another_run_is_a_gap_and_all_that_this_one_knows():
    bus = Bus()
    publish(bus, 3)
    told = resumed(bus, Subscription(since=Since("of an earlier run", 1000)))
    assert told[1] == {"type": "gap", "reason": "the daemon was restarted", "n_lost": None}
    assert [event["seq"] for event in told[2:]] == [0, 1, 2, 3, 4]


def test_only_what_was_asked_for_is_told():
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
def test_wrong_requests_say_what_is_wrong(line, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        Subscription.parse(line)


def test_a_request_is_read():
    line = b'{"type":"subscribe","labels":["stop"],"streams":null,"since":{"boot_id":"a","seq":7}}'
    subscription = Subscription(labels=frozenset({"stop"}), since=Since("a", 7))
    assert Subscription.parse(line) == subscription
    assert Subscription.parse(subscription.to_json().encode()) == subscription
