"""Every event read back from its JSON is equal, and has a readable form."""

import dataclasses
import json
from importlib.resources import files

import jsonschema
import pytest

from kwsd.protocol.events import PROTOCOL, DetectionEvent, Event, Lagged, SourceDown, event_types, parse_event
from kwsd.protocol.subscription import Subscription
from kwsd.protocol.text import readable

SCHEMA = json.loads(files("kwsd.protocol").joinpath("events.schema.json").read_text())
SAMPLES = {
    bool: True,
    int: 7,
    int | None: 7,
    float: 0.5,
    float | None: 0.5,
    str: "text",
    str | None: "text",
    list[str]: ["a", "b"],
    dict[str, float]: {"yes": 0.5},
}
NAMED = {"boot_id": "0" * 32, "time": "2026-11-22T22:20:16.823Z", "protocol": PROTOCOL}


def example(kind: type[Event]) -> Event:
    return kind(**{field.name: NAMED.get(field.name, SAMPLES[field.type]) for field in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", event_types().values(), ids=lambda kind: kind.type)
def test_round_trip_and_readable_form(kind):
    event = example(kind)
    line = event.to_json()
    assert "\n" not in line
    assert json.loads(line)["type"] == kind.type
    assert parse_event(line) == event
    assert "\n" not in readable(event)
    jsonschema.validate(json.loads(line), SCHEMA)


def test_the_schema_describes_every_event_with_all_fields():
    described = SCHEMA["$defs"]["events"]
    assert described.keys() == event_types().keys()
    for kind in event_types().values():
        names = {"type", *(field.name for field in dataclasses.fields(kind))}
        assert described[kind.type]["properties"].keys() == names
        assert set(described[kind.type]["required"]) == names - {"host"}


@pytest.mark.parametrize(
    "wrong",
    [{"score": 1.5}, {"score": "high"}, {"label": None}, {"seq": -1}, {"boot_id": "x"}, {"time": "now"}],
    ids=str,
)
def test_the_schema_refuses_wrong_values(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(example(DetectionEvent).to_json()) | wrong, SCHEMA)


def test_the_schema_describes_a_subscription():
    validate = jsonschema.Draft202012Validator({**SCHEMA, "oneOf": [{"$ref": "#/$defs/requests/subscribe"}]}).validate
    validate({"type": "subscribe", "labels": ["stop"], "since": {"boot_id": "a", "seq": 3}, "scores": True})
    asked = SCHEMA["$defs"]["requests"]["subscribe"]["properties"].keys()
    assert asked == {"type", *(field.name for field in dataclasses.fields(Subscription))}


def test_an_unknown_text_field_is_ignored():
    assert parse_event('{"type":"lagged","n_lost":3,"since":"1.4"}') == Lagged(n_lost=3)


@pytest.mark.parametrize("line", ["[]", "nonsense", '{"type":"party"}', '{"type":"lagged"}', '{"type":[]}'])
def test_a_line_that_is_no_event_is_a_value_error(line):
    with pytest.raises(ValueError, match=r"."):
        parse_event(line)


def test_an_ended_source_announces_no_retry():
    stamp = {"seq": 3, "boot_id": "x", "time": "2026-11-22T22:20:16.823Z"}
    ended = SourceDown(stream="a", reason="ended", retry_seconds=None, **stamp)
    assert parse_event(ended.to_json()) == ended
    assert readable(ended) == "source down: a: ended"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"type":"lagged"}', "lagged event: n_lost: missing"),
        ('{"type":"lagged","n_lost":"many"}', "lagged event: n_lost: 'many' is not a whole number"),
        (
            '{"type":"scores","stream":"a","end_seconds":1,"scores":{"stop":"high"}}',
            "scores.stop: 'high' is not a number",
        ),
        ('{"type":"gap","reason":1,"n_lost":null}', "gap event: reason: 1 is not text"),
        ('{"type":"source_up","stream":"a","rate_hz":1}', "source_up event: seq, boot_id or time is missing"),
    ],
)
def test_a_wrong_field_is_named(line, problem):
    with pytest.raises(ValueError, match=problem):
        parse_event(line)


def test_a_field_of_a_newer_daemon_is_ignored():
    assert parse_event('{"type":"lagged","n_lost":3,"since_version":9}') == Lagged(n_lost=3)
