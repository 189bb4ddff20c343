"""Every event survives its JSON, and has a readable form."""

import dataclasses
import json

import pytest

from kwsd.events import Event, Lagged, SourceDown, event_types, parse_event
from kwsd.readable import readable

SAMPLES = {int: 7, int | None: 7, float: 0.5, float | None: 0.5, str: "text", list[str]: ["a", "b"]}


def example(kind: type[Event]) -> Event:
    return kind(**{field.name: SAMPLES[field.type] for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", event_types().values(), ids=lambda kind: kind.type)
def test_round_trip_and_readable_form(kind):
    event = example(kind)
    line = event.to_json()
    assert "\n" not in line
    assert json.loads(line)["type"] == kind.type
    assert parse_event(line) == event
    assert "\n" not in readable(event)


def test_all_events_are_found():
    assert set(event_types()) == {
        "hello", "detection", "source_down", "source_up", "overrun", "goodbye", "lagged", "error", "gap", "subscribed",
    }  # fmt: skip


def test_what_a_newer_daemon_adds_is_left_out():
    assert parse_event('{"type":"lagged","n_lost":3,"since":"1.4"}') == Lagged(n_lost=3)


@pytest.mark.parametrize("line", ["[]", "nonsense", '{"type":"party"}', '{"type":"lagged"}', '{"type":[]}'])
def test_what_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"."):
        parse_event(line)


def test_a_source_that_has_ended_is_not_tried_again():
    ended = SourceDown(stream="a", reason="ended", retry_seconds=None)
    assert parse_event(ended.to_json()) == ended
    assert readable(ended) == "source down: a: ended"
