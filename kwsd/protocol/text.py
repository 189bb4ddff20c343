"""Events as lines for people."""

from kwsd.plain import plain
from kwsd.protocol.events import (
    DetectionEvent,
    Error,
    Event,
    Gap,
    Goodbye,
    Hello,
    Lagged,
    NearMiss,
    Overrun,
    Position,
    Scores,
    SourceDown,
    SourceUp,
    Subscribed,
)


def readable(event: Event) -> str:
    """The event in one line, safe to show."""
    return plain(_line(event))


def _line(event: Event) -> str:
    match event:
        case DetectionEvent():
            return (
                f"{event.end_seconds:8.2f} s  {event.label:<10} score {event.score:.2f}  "
                f"{event.loudness_dbfs:6.1f} dBFS  {_place(event)}"
            )
        case NearMiss():
            score = f"score {event.score:.2f} of {event.threshold:.2f}, a near miss"
            return f"{event.end_seconds:8.2f} s  {event.label:<10} {score}  {_place(event)}"
        case Hello():
            return f"listening for {', '.join(event.labels)} with {event.model} on {event.provider}"
        case SourceUp():
            return f"source up: {_place(event)}, {event.rate_hz} Hz"
        case SourceDown():
            return f"source down: {_place(event)}: {event.reason}{_next_try(event.retry_seconds)}"
        case Overrun():
            return f"overrun: {_place(event)} lost {event.lost_seconds:g} s of audio"
        case Scores():
            scores = "  ".join(f"{label} {score:.2f}" for label, score in event.scores.items())
            return f"{event.end_seconds:8.2f} s  {scores}  {event.stream}"
        case Lagged():
            return f"lagged: {event.n_lost} events lost, this subscriber was too slow"
        case Subscribed():
            return f"subscribed from event {event.next_seq} on"
        case Position():
            return f"position: no event for this subscriber before event {event.next_seq}"
        case Gap():
            lost = "an unknown number of events" if event.n_lost is None else f"{event.n_lost} events"
            return f"gap: {lost} lost, {event.reason}"
        case Goodbye():
            return f"goodbye: {event.reason}, after {event.heard_seconds:.1f} s of audio"
        case Error():
            return f"error: {event.reason}"
    raise TypeError(f"{event.type} events have no readable form")


def _place(event: DetectionEvent | NearMiss | SourceUp | SourceDown | Overrun) -> str:
    return f"{event.host}/{event.stream}" if event.host else event.stream


def _next_try(retry_seconds: float | None) -> str:
    if retry_seconds is None:
        return ""
    return f"; next try in {retry_seconds:g} s" if retry_seconds else "; up again with its first sound"
