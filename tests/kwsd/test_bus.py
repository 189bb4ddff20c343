"""Numbers without gaps; a slow subscriber loses only its own events, and knows how many."""

import asyncio
import json

import pytest

import kwsd.bus
from kwsd.bus import HISTORY_EVENTS, QUEUE_EVENTS, Bus
from kwsd.events import DetectionEvent, Overrun
from kwsd.requests import Request, Since


def lines(data: bytes) -> list[dict]:
    return [json.loads(line) for line in data.splitlines()]


def publish(bus: Bus, n: int) -> None:
    for _ in range(n):
        bus.publish(Overrun(stream="default", lost_seconds=0.1))


def test_everybody_gets_every_event_in_order():
    async def scenario():
        bus = Bus()
        subscriptions = [bus.subscribe() for _ in range(20)]
        publish(bus, 5)
        return bus.numbering.boot_id, [lines(await one.take()) for one in subscriptions]

    boot_id, taken = asyncio.run(scenario())
    assert len(taken) == 20
    for events in taken:
        assert [event["seq"] for event in events] == [0, 1, 2, 3, 4]
        assert {event["boot_id"] for event in events} == {boot_id}
        assert all(event["time"].endswith("Z") for event in events)


def test_a_slow_subscriber_is_told_what_it_lost_and_nobody_else_loses():
    async def scenario():
        bus = Bus()
        slow, quick = bus.subscribe(), bus.subscribe()
        got = []
        for _ in range(3):
            publish(bus, QUEUE_EVENTS // 2)
            got += lines(await quick.take())
        return lines(await slow.take()), got

    slow, quick = asyncio.run(scenario())
    n_published = 3 * (QUEUE_EVENTS // 2)
    assert [event["seq"] for event in quick] == list(range(n_published))
    assert slow[0] == {"type": "lagged", "n_lost": n_published - QUEUE_EVENTS}
    assert [event["seq"] for event in slow[1:]] == list(range(n_published - QUEUE_EVENTS, n_published))


def test_after_closing_what_waits_can_be_taken_and_then_the_end():
    async def scenario():
        bus = Bus()
        subscription = bus.subscribe()
        publish(bus, 1)
        bus.close()
        return await subscription.take(), await subscription.take()

    first, second = asyncio.run(scenario())
    assert len(lines(first)) == 1
    assert second == b""


def test_who_has_left_gets_nothing():
    async def scenario():
        bus = Bus()
        subscription = bus.subscribe()
        bus.unsubscribe(subscription)
        publish(bus, 1)
        subscription.close()
        return await subscription.take()

    assert asyncio.run(scenario()) == b""


def detection(label, stream="hall"):
    return DetectionEvent(stream=stream, label=label, score=0.9, start_seconds=0, end_seconds=1, loudness_dbfs=-20)


def resumed(bus, request):
    """What a subscriber is told that asks for something, after a word that it had not asked for."""

    async def scenario():
        subscription = bus.subscribe()
        bus.publish(detection("yes"))
        bus.resume(subscription, request)
        bus.publish(detection("stop"))
        return lines(await subscription.take())

    return asyncio.run(scenario())


def test_who_was_away_is_told_what_it_missed_exactly_once_and_in_order():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Request(since=Since(bus.numbering.boot_id, 6)))
    assert told[0] == {"type": "subscribed", "next_seq": 7}
    assert [event["seq"] for event in told[1:]] == [7, 8, 9, 10, 11]


def test_without_since_nothing_is_told_twice():
    bus = Bus()
    publish(bus, 10)
    told = resumed(bus, Request())
    assert told[0] == {"type": "subscribed", "next_seq": 11}
    assert [event["seq"] for event in told[1:]] == [11]


def test_what_is_gone_is_a_gap(monkeypatch):
    bus = Bus()
    publish(bus, HISTORY_EVENTS + 10)
    told = resumed(bus, Request(since=Since(bus.numbering.boot_id, 3)))
    assert told[1] == {"type": "gap", "reason": "longer ago than is kept", "n_lost": 7}  # 4 to 10, of 2011
    assert [event["seq"] for event in told[2:]] == list(range(11, HISTORY_EVENTS + 12))
    monkeypatch.setattr(kwsd.bus, "HISTORY_SECONDS", 0.0)
    told = resumed(bus, Request(since=Since(bus.numbering.boot_id, HISTORY_EVENTS + 1)))
    assert told[1]["n_lost"] == 11
    assert len(told) == 3


def test_another_run_is_a_gap_and_all_that_this_one_knows():
    bus = Bus()
    publish(bus, 3)
    told = resumed(bus, Request(since=Since("of an earlier run", 1000)))
    assert told[1] == {"type": "gap", "reason": "the daemon was started anew", "n_lost": None}
    assert [event["seq"] for event in told[2:]] == [0, 1, 2, 3, 4]


def test_only_what_was_asked_for_is_told():
    bus = Bus()
    for label, stream in (("stop", "yard"), ("go", "hall"), ("stop", "hall")):
        bus.publish(detection(label, stream))
    bus.publish(Overrun(stream="hall", lost_seconds=1))
    bus.publish(Overrun(stream="yard", lost_seconds=1))
    since = Since(bus.numbering.boot_id, -1)
    told = resumed(bus, Request(labels=frozenset({"stop"}), streams=frozenset({"hall"}), since=since))
    assert [event["seq"] for event in told[1:]] == [2, 3, 6]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"garbage", "not a line of JSON"),
        (b"[" * 5000, "not a line of JSON"),
        (b"[1,2]", "request type None is not known"),
        (b'{"type":"party"}', "request type 'party' is not known to this daemon; there is subscribe"),
        (b'{"type":"subscribe","label":["a"]}', "label: unknown key; there are labels"),
        (b'{"type":"subscribe","labels":"stop"}', "labels: must be a list of names"),
        (b'{"type":"subscribe","streams":[1]}', "streams: must be a list of names"),
        (b'{"type":"subscribe","since":5}', "since: must be"),
        (b'{"type":"subscribe","since":{"boot_id":"a","seq":true}}', "since: must be"),
        (b'{"type":"subscribe","since":{"boot_id":"a","seq":-2}}', "since: must be"),
    ],
)
def test_wrong_requests_say_what_is_wrong(line, reason):
    with pytest.raises(ValueError, match=reason):
        Request.parse(line)


def test_a_request_is_read():
    line = b'{"type":"subscribe","labels":["stop"],"streams":null,"since":{"boot_id":"a","seq":7}}'
    assert Request.parse(line) == Request(frozenset({"stop"}), None, Since("a", 7))
