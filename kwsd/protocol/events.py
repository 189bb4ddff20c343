"""The events: what the daemon sends, one JSON object a line.

Law: every kind of event is a dataclass here, its fields are the protocol, and
`parse_event(event.to_json()) == event`. Protocol 1: a field may be added if it has a default, and is
never changed, so that old and new programs understand each other.
`events.schema.json` beside this file describes the same events; a test compares them.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from kwsd.typed import ProblemsError, build, parse_json

PROTOCOL = 1


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line to one subscriber."""

    type: ClassVar[str]

    def to_json(self) -> str:
        """The line, without its newline. A daemon without a name leaves out `host`."""
        values = {"type": self.type, **asdict(self)}
        if values.get("host", "") is None:
            del values["host"]
        return json.dumps(values, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class Published(Event):
    """An event for all subscribers. The bus fills in these fields.

    Attributes:
        seq: number of the event in this run of the daemon, from 0.
        boot_id: identifies the run.
        time: wall clock, ISO 8601 in UTC with milliseconds.
        host: name of the daemon, if its configuration gives one.
    """

    seq: int = -1
    boot_id: str = ""
    time: str = ""
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class Hello(Event):
    """First line of every connection that is accepted.

    Attributes:
        next_seq: number of the next published event.
        streams: configured streams.
        labels: the model's keywords.
        provider: ONNX Runtime's execution provider in use.
        host: name of the daemon, if its configuration gives one.
    """

    type: ClassVar[str] = "hello"
    protocol: int
    boot_id: str
    next_seq: int
    streams: list[str]
    labels: list[str]
    model: str
    provider: str
    host: str | None = None


@dataclass(frozen=True, kw_only=True)
class DetectionEvent(Published):
    """A keyword was heard.

    Attributes:
        score: smoothed posterior, 0 to 1.
        start_seconds, end_seconds: the window that decided it, since the start of the stream.
        loudness_dbfs: root mean square of that window.
    """

    type: ClassVar[str] = "detection"
    stream: str
    label: str
    score: float
    start_seconds: float
    end_seconds: float
    loudness_dbfs: float


@dataclass(frozen=True, kw_only=True)
class NearMiss(Published):
    """A score came close to its threshold and fell again. Only for subscribers that asked.

    Attributes:
        score: the highest one.
        start_seconds, end_seconds: its window, since the start of the stream.
    """

    type: ClassVar[str] = "near_miss"
    stream: str
    label: str
    score: float
    threshold: float
    start_seconds: float
    end_seconds: float


@dataclass(frozen=True, kw_only=True)
class SourceDown(Published):
    """A source stopped delivering audio.

    Attributes:
        retry_seconds: time until the next attempt to open it; null if it has ended; 0 if nothing is
            opened again: the first sound of a silent channel, or of standard input, brings it up.
    """

    type: ClassVar[str] = "source_down"
    stream: str
    reason: str
    retry_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class SourceUp(Published):
    """A source delivers audio: at the start, and again after it was down."""

    type: ClassVar[str] = "source_up"
    stream: str
    rate_hz: int


@dataclass(frozen=True, kw_only=True)
class Overrun(Published):
    """Audio was lost before it could be processed."""

    type: ClassVar[str] = "overrun"
    stream: str
    lost_seconds: float


@dataclass(frozen=True, kw_only=True)
class Goodbye(Published):
    """Last line: the daemon ends.

    Attributes:
        heard_seconds: audio processed in this run, all streams together.
    """

    type: ClassVar[str] = "goodbye"
    reason: str
    heard_seconds: float


@dataclass(frozen=True, kw_only=True)
class Scores(Event):
    """The running scores of a stream, for subscribers that asked for them.

    They have no number and are not kept. A subscriber that is slow or away misses them.

    Attributes:
        scores: of each keyword, in the window that ends at `end_seconds`.
        level_dbfs: root mean square of the audio that arrived last, a tenth of a second or so.
    """

    type: ClassVar[str] = "scores"
    stream: str
    end_seconds: float
    scores: dict[str, float]
    level_dbfs: float = -120.0


@dataclass(frozen=True, kw_only=True)
class Lagged(Event):
    """This subscriber was too slow: `n_lost` events before the next line were dropped."""

    type: ClassVar[str] = "lagged"
    n_lost: int


@dataclass(frozen=True, kw_only=True)
class Subscribed(Event):
    """The answer to a subscription. The requested events follow, from number `next_seq` on."""

    type: ClassVar[str] = "subscribed"
    next_seq: int


@dataclass(frozen=True, kw_only=True)
class Position(Event):
    """Every event before number `next_seq` was sent, or was not requested.

    Sent occasionally when events were filtered out, so that a later resume does not report them as a gap.
    """

    type: ClassVar[str] = "position"
    next_seq: int


@dataclass(frozen=True, kw_only=True)
class Gap(Event):
    """`n_lost` requested events are no longer kept, whether or not they match the filter; null if unknown."""

    type: ClassVar[str] = "gap"
    reason: str
    n_lost: int | None


@dataclass(frozen=True, kw_only=True)
class Error(Event):
    """The daemon closes this connection.

    Attributes:
        retryable: whether the same client may succeed later.
    """

    type: ClassVar[str] = "error"
    reason: str
    retryable: bool


def event_types(kind: type[Event] = Event) -> dict[str, type[Event]]:
    """Every event class by its `type`."""
    own = {kind.type: kind} if "type" in vars(kind) else {}
    for child in kind.__subclasses__():
        own |= event_types(child)
    return own


def parse_event(line: str | bytes) -> Event:
    """The reverse of `to_json`. Fields that a newer daemon added are ignored; new fields have defaults.

    Raises:
        ValueError: no JSON object, an unknown type, or a missing or wrong field.
    """
    data = parse_json(line, f"not a line of JSON: {line!r:.80}")
    kind = event_types().get(str(data.get("type"))) if isinstance(data, dict) else None
    if kind is None:
        raise ValueError(f"not an event of protocol {PROTOCOL}: {line!r:.80}")
    names = {field.name for field in fields(kind)}
    try:
        event = build(kind, {key: value for key, value in data.items() if key in names})
    except ProblemsError as error:
        raise ValueError(f"{kind.type} event: {error}") from None
    if isinstance(event, Published) and not (event.seq >= 0 and event.boot_id and event.time):
        raise ValueError(f"{kind.type} event: seq, boot_id or time is missing")
    return event
