"""Numbers without gaps; a slow subscriber loses only its own events, and knows how many."""

import asyncio
import json

from kwsd.bus import QUEUE_EVENTS, Bus
from kwsd.events import Overrun


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
