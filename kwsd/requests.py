"""What a subscriber may ask for: one line of JSON, judged as a whole.

{"type":"subscribe","labels":["stop"],"streams":["hall"],"since":{"boot_id":"…","seq":117},"scores":true}

Where the daemon wants a token, another line comes before it:

{"type":"authenticate","token":"…"}
"""

import json
from dataclasses import dataclass
from typing import Any

from kwsd.events import Event


@dataclass(frozen=True, slots=True)
class Since:
    """The last event that a subscriber knows."""

    boot_id: str
    seq: int


@dataclass(frozen=True, slots=True)
class Request:
    """A subscription. What is None is not asked for.

    Attributes:
        labels: detections of these alone.
        streams: events of these alone, and those of no stream.
        since: what happened after that event first.
        scores: the running scores too.
    """

    labels: frozenset[str] | None = None
    streams: frozenset[str] | None = None
    since: Since | None = None
    scores: bool = False

    def wants(self, event: Event) -> bool:
        """Whether this subscriber is told."""
        return (self.labels is None or getattr(event, "label", None) in (None, *self.labels)) and (
            self.streams is None or getattr(event, "stream", None) in (None, *self.streams)
        )

    def wants_label(self, label: str) -> bool:
        return self.labels is None or label in self.labels

    @classmethod
    def parse(cls, line: bytes) -> "Request":
        """Raises:
        ValueError: with what is wrong, and what there is.
        """
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("not a line of JSON") from None
        kind = data.get("type") if isinstance(data, dict) else None
        if kind != "subscribe":
            raise ValueError(f"request type {kind!r:.40} is not known to this daemon; there is subscribe")
        if unknown := data.keys() - {"type", "labels", "streams", "since", "scores"}:
            raise ValueError(f"{min(unknown)!r:.40}: unknown key; there are labels, streams, since, scores")
        names = {key: _names(key, data[key]) for key in ("labels", "streams") if data.get(key) is not None}
        since, scores = data.get("since"), data.get("scores", False)
        if type(scores) is not bool:
            raise ValueError("scores: must be true or false")
        return cls(**names, since=None if since is None else _since(since), scores=scores)


def parse_token(line: bytes) -> bytes:
    """The token that a line shows; empty if it shows none."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return b""
    shows = isinstance(data, dict) and data.get("type") == "authenticate" and isinstance(data.get("token"), str)
    return data["token"].encode(errors="surrogatepass") if shows else b""


def _names(key: str, value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key}: must be a list of names")
    return frozenset(value)


def _since(value: Any) -> Since:
    if isinstance(value, dict) and value.keys() == {"boot_id", "seq"}:
        boot_id, seq = value["boot_id"], value["seq"]
        if isinstance(boot_id, str) and type(seq) is int and seq >= -1:
            return Since(boot_id, seq)
    raise ValueError('since: must be {"boot_id":TEXT,"seq":NUMBER}, of an event that you had')
