"""The events: what goes out, one JSON object a line.

The law of this file: every kind of event is a dataclass here, its fields are the protocol,
and `parse_event(event.to_json()) == event`. Protocol 1; fields may be added, never changed.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """What one subscriber is told."""

    type: ClassVar[str]

    def to_json(self) -> str:
        """One line, without its newline."""
        return json.dumps({"type": self.type, **asdict(self)}, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Published(Event):
    """What all subscribers are told. The bus fills in these three.

    Attributes:
        seq: number of the event in this run of the daemon.
        boot_id: names the run.
        time: wall clock, ISO 8601 in UTC with milliseconds.
    """

    seq: int = -1
    boot_id: str = ""
    time: str = ""


@dataclass(frozen=True, kw_only=True)
class Hello(Event):
    """First line of every connection.

    Attributes:
        next_seq: what the next published event will have.
        provider: ONNX Runtime's execution provider that is really in use.
    """

    type: ClassVar[str] = "hello"
    protocol: int
    boot_id: str
    next_seq: int
    streams: list[str]
    labels: list[str]
    model: str
    provider: str


@dataclass(frozen=True, kw_only=True)
class DetectionEvent(Published):
    """A keyword was heard; the fields of `kwsd.spotter.Detection`."""

    type: ClassVar[str] = "detection"
    stream: str
    label: str
    score: float
    start_seconds: float
    end_seconds: float
    loudness_dbfs: float


@dataclass(frozen=True, kw_only=True)
class SourceDown(Published):
    """A source stopped delivering; the next try is in `retry_seconds`, or null if it has ended.

    It is 0 for a silent channel of a device whose other channels are heard: its first sound is waited for.
    """

    type: ClassVar[str] = "source_down"
    stream: str
    reason: str
    retry_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class SourceUp(Published):
    """A source delivers: at the start, and again after it was down."""

    type: ClassVar[str] = "source_up"
    stream: str
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class Overrun(Published):
    """Audio was lost before it could be heard."""

    type: ClassVar[str] = "overrun"
    stream: str
    lost_seconds: float


@dataclass(frozen=True, kw_only=True)
class Goodbye(Published):
    """Last line: the daemon ends.

    Attributes:
        heard_seconds: audio that was heard in this run.
    """

    type: ClassVar[str] = "goodbye"
    reason: str
    heard_seconds: float


@dataclass(frozen=True, kw_only=True)
class Scores(Event):
    """The running scores of a stream, for subscribers who ask for them.

    They have no number and are not kept: who does not keep up, or was away, misses them.

    Attributes:
        scores: of each keyword, in the window that ends at `end_seconds`.
    """

    type: ClassVar[str] = "scores"
    stream: str
    end_seconds: float
    scores: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Lagged(Event):
    """This subscriber was too slow: `n_lost` events before the next one are gone for it."""

    type: ClassVar[str] = "lagged"
    n_lost: int


@dataclass(frozen=True, kw_only=True)
class Subscribed(Event):
    """The answer to a subscription: what follows is what was asked for, from event `next_seq` on.

    It comes again now and then while nothing was for this subscriber.
    """

    type: ClassVar[str] = "subscribed"
    next_seq: int


@dataclass(frozen=True, kw_only=True)
class Gap(Event):
    """Of what happened meanwhile, `n_lost` events are gone, whomever they were for; null if nobody knows how many."""

    type: ClassVar[str] = "gap"
    reason: str
    n_lost: int | None


@dataclass(frozen=True, kw_only=True)
class Error(Event):
    """This subscriber is disconnected: it sent something wrong, or, if `passing`, it may come again later."""

    type: ClassVar[str] = "error"
    reason: str
    passing: bool


def event_types(kind: type[Event] = Event) -> dict[str, type[Event]]:
    """Every event class by its `type`."""
    own = {kind.type: kind} if "type" in vars(kind) else {}
    for child in kind.__subclasses__():
        own |= event_types(child)
    return own


def parse_event(line: str | bytes) -> Event:
    """The reverse of `to_json`; fields that a newer daemon added are left out.

    Raises:
        ValueError: not a JSON object, an unknown type, or a missing field.
    """
    try:
        data: Any = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply for an event") from None
    kind = event_types().get(str(data.get("type"))) if isinstance(data, dict) else None
    if kind is None:
        raise ValueError(f"not an event of protocol {PROTOCOL}: {line!r:.80}")
    try:
        return kind(**{f.name: data[f.name] for f in fields(kind)})
    except KeyError as error:
        raise ValueError(f"{kind.type} event without {error}") from None
