"""What a subscriber may send: a subscription, one line of JSON.

{"type":"subscribe","labels":["stop"],"streams":["hall"],"since":{"boot_id":"…","seq":117},"scores":true}

Where the daemon requires a token, another line comes first:

{"type":"authenticate","token":"…"}
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from kwsd.protocol.events import Event, NearMiss
from kwsd.typed import Between, build, parse_json


@dataclass(frozen=True, slots=True)
class Since:
    """The last event that a subscriber has seen; a `seq` of -1 stands before the first one."""

    boot_id: str
    seq: Annotated[int, Between(-1, 2**63)]

    @classmethod
    def parse(cls, text: str) -> "Since":
        """Read BOOT_ID:SEQ.

        Raises:
            ValueError: the text has another form.
        """
        boot_id, _, seq = text.rpartition(":")
        if not boot_id or not (seq == "-1" or (seq.isdecimal() and len(seq) < 19)):
            raise ValueError(f"{text!r:.60} is not BOOT_ID:SEQ of an event")
        return cls(boot_id, int(seq))


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which events a subscriber wants.

    Attributes:
        labels: only detections and near misses of these keywords; None for all.
        streams: only events of these streams, and events without a stream; None for all.
        since: first send the events after this one; None for only new events.
        scores: send the running scores too.
        near_misses: send near misses too.
    """

    type: Literal["subscribe"] = "subscribe"
    labels: frozenset[str] | None = None
    streams: frozenset[str] | None = None
    since: Since | None = None
    scores: bool = False
    near_misses: bool = False

    def wants(self, event: Event) -> bool:
        """Whether the event passes the filter."""
        label, stream = getattr(event, "label", None), getattr(event, "stream", None)
        return (
            (self.labels is None or label is None or label in self.labels)
            and (self.streams is None or stream is None or stream in self.streams)
            and (self.near_misses or not isinstance(event, NearMiss))
        )

    def wants_label(self, label: str) -> bool:
        return self.labels is None or label in self.labels

    def to_json(self) -> str:
        """The line, without its newline. What was not set is left out."""
        line: dict[str, Any] = {"type": self.type}
        for key, names in (("labels", self.labels), ("streams", self.streams)):
            if names is not None:
                line[key] = sorted(names)
        if self.since:
            line["since"] = {"boot_id": self.since.boot_id, "seq": self.since.seq}
        for key in ("scores", "near_misses"):
            if getattr(self, key):
                line[key] = True
        return json.dumps(line)

    @classmethod
    def parse(cls, line: bytes) -> "Subscription":
        """The reverse of `to_json`.

        Raises:
            ValueError: with every problem, in one line.
        """
        data = parse_json(line, 'not a line of JSON, such as {"type":"subscribe"}')
        if not isinstance(data, dict) or "type" not in data:
            raise ValueError('no request, such as {"type":"subscribe"}')
        return build(cls, data)


def token_line(token: str) -> str:
    """The line that shows a token, without its newline."""
    return json.dumps({"type": "authenticate", "token": token})


def parse_token(line: bytes) -> bytes:
    """The token in a line; empty if there is none."""
    try:
        data = parse_json(line, "no token")
    except ValueError:
        return b""
    shows = isinstance(data, dict) and data.get("type") == "authenticate" and isinstance(data.get("token"), str)
    return data["token"].encode(errors="surrogatepass") if shows else b""
