"""Events of several daemons as one sequence.

Law: events that arrive within `HOLD_SECONDS` of each other come in the order of their time. What a
daemon sends after it was away comes late. The machines' clocks must agree.
"""

import heapq
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from queue import Empty, Queue
from typing import Any

from kwsd.client import subscribe
from kwsd.protocol.events import Event, Hello
from kwsd.protocol.subscription import Since

_MOST_WAITING = 1000  # events; then the daemons' own queues hold the others
HOLD_SECONDS = 0.3
"""How long an event waits for earlier ones of other daemons, and for the replay of what was missed."""


def merge(sources: list[Callable[[], Iterator[Event]]]) -> Iterator[Event]:
    """Yield the events of all sources by time, each `HOLD_SECONDS` after it came. Events without a time come at once.

    Args:
        sources: each makes its iterator in a thread of its own.

    Raises:
        KwsdError: of a source; or any other error of it.
    """
    arrived: Queue[Event | Exception | None] = Queue(_MOST_WAITING)
    for source in sources:
        threading.Thread(target=_read, args=[source, arrived], daemon=True).start()
    waiting: list[tuple[str, int, float, Event]] = []  # by time; the number keeps the order of equal ones
    numbers, n_open = count(), len(sources)
    while n_open or waiting:
        seconds = max(0.0, waiting[0][2] - time.monotonic()) if waiting else None
        with suppress(Empty):
            one = arrived.get(timeout=seconds)
            if isinstance(one, Exception):
                raise one
            if one is None:
                n_open -= 1
            elif when := getattr(one, "time", ""):
                heapq.heappush(waiting, (when, next(numbers), time.monotonic() + HOLD_SECONDS, one))
            else:
                yield one
        while waiting and (waiting[0][2] <= time.monotonic() or not n_open):
            yield heapq.heappop(waiting)[3]


def _read(source: Callable[[], Iterator[Event]], arrived: "Queue[Event | Exception | None]") -> None:
    try:
        for event in source():
            arrived.put(event)
        arrived.put(None)
    except Exception as error:  # the caller raises it
        arrived.put(error)


def since_of(address: str | None, given: list[Since], **login: Any) -> Since | None:
    """The position of one daemon among those given; its greeting says which run it is.

    A daemon whose run is not among them was restarted: it reports a gap, and sends what it keeps.

    Raises:
        SocketError: the daemon cannot be reached.
    """
    if len(given) < 2:
        return given[0] if given else None
    hello = next(subscribe(address, reconnect=False, **login))
    assert isinstance(hello, Hello)
    return next((one for one in given if one.boot_id == hello.boot_id), given[0])
