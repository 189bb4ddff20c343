"""kwsd.typed builds a dataclass from plain data and reports all problems at once."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwsd.typed import Between, Matching, ProblemsError, build, parse_json, unknown_key


@dataclass
class Inner:
    n: Annotated[int, Between(1, 64)]
    name: Annotated[str, Matching("[a-z]+", "a word")] = "a"


@dataclass
class Outer:
    share: Annotated[float, Between(0, 1, above=True)] = 0.5
    kind: Literal["red", "green"] = "red"
    path: Path | None = None
    inner: Inner | None = None
    by_name: dict[str, Inner] = field(default_factory=dict)
    numbers: list[float] = field(default_factory=list)
    words: frozenset[str] | None = None
    is_on: bool = False
    anything: Any = None

    def problems(self) -> list[str]:
        return ["share, kind: green needs more than half"] if self.kind == "green" and self.share <= 0.5 else []


def problems(data, kind=Outer, prefix=""):
    with pytest.raises(ProblemsError) as raised:
        build(kind, data, prefix)
    assert str(raised.value) == "; ".join(raised.value.problems)
    return raised.value.problems


def test_an_empty_dict_gives_the_defaults():
    assert build(Outer, {}) == Outer()


def test_every_kind_of_value_is_converted():
    data = {
        "share": 1,
        "kind": "green",
        "path": "a/b",
        "inner": {"n": 3},
        "by_name": {"x": {"n": 64, "name": "abc"}},
        "numbers": [1, 2.5],
        "words": ["a", "b", "a"],
        "is_on": True,
        "anything": {"deep": [1]},
    }
    built = build(Outer, data)
    assert built.share == 1.0
    assert isinstance(built.share, float)
    assert built.path == Path("a/b")
    assert built.inner == Inner(3)
    assert built.by_name == {"x": Inner(64, "abc")}
    assert built.numbers == [1.0, 2.5]
    assert built.words == frozenset({"a", "b"})
    assert built.anything == {"deep": [1]}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"share": 0}, "share: 0 is not between 0 and 1"),
        ({"share": 1.5}, "share: 1.5 is not between 0 and 1"),
        ({"share": float("nan")}, "share: nan is not a number"),
        ({"share": True}, "share: True is not a number"),
        ({"share": "x"}, "share: 'x' is not a number"),
        ({"share": 10**400}, "is not a number"),
        ({"inner": {"n": 10**400}}, "is not between 1 and 64"),
        ({"inner": {"n": -(10**400)}}, "is not between 1 and 64"),
        ({"kind": "blue"}, "kind: 'blue' is not one of red, green"),
        ({"kind": ["red"]}, "kind: ['red'] is not one of red, green"),
        ({"path": ""}, "path: '' is not a path"),
        ({"path": "a\0b"}, "is not a path"),
        ({"inner": 5}, "inner: 5 is not keys and values"),
        ({"inner": {}}, "inner.n: missing"),
        ({"inner": {"n": 0}}, "inner.n: 0 is not between 1 and 64"),
        ({"inner": {"n": 1.0}}, "inner.n: 1.0 is not a whole number"),
        ({"inner": {"n": 1, "name": "A1"}}, "inner.name: 'A1' is not a word"),
        ({"by_name": {"x": {"n": 1, "nane": 2}}}, "by_name.x.nane: unknown key; did you mean name?"),
        ({"by_name": []}, "by_name: [] is not keys and values"),
        ({"numbers": [1, "two"]}, "numbers: 'two' is not a number"),
        ({"numbers": {"a": 1}}, "numbers: {'a': 1} is not a list"),
        ({"words": "abc"}, "words: 'abc' is not a list"),
        ({"words": [1]}, "words: 1 is not text in quotes"),
        ({"is_on": 1}, "is_on: 1 is not true or false"),
        ({"shar": 1}, "shar: unknown key; did you mean share?"),
        ({5: 1}, "5: unknown key"),
        ({"kind": "green"}, "share, kind: green needs more than half"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_line_with_its_path(data, problem):
    [line] = problems(data)
    assert problem in line
    assert "\n" not in line


def test_every_problem_is_reported_at_once():
    assert len(problems({"share": 2, "kind": 1, "inner": {"n": 0, "x": 1}, "zzz": 0})) == 5


def test_paths_begin_with_the_prefix():
    assert problems({"n": 0}, Inner, "streams.hall.") == ["streams.hall.n: 0 is not between 1 and 64"]
    assert problems([], Inner, "streams.hall.") == ["streams.hall: [] is not keys and values"]


def test_a_message_stays_short_for_any_value():
    nested: Any = []
    for _ in range(500):
        nested = [nested, nested]
    many = [
        {"numbers": ["x"] * 10_000},
        {"words": [1] * 10_000},
        {"by_name": dict.fromkeys(map(str, range(10_000)), 1)},
    ]
    long = [{"kind": "x" * 10_000}, {"share": nested}, {"y" * 10_000: 1}, {"inner": {"n": list(range(10_000))}}]
    for data in [*long, *many]:
        assert all(len(line) < 400 for line in problems(data))
        assert len(problems(data)) <= 21


def test_without_a_similar_key_all_keys_are_listed():
    assert unknown_key("a.b", "zzzz", ["one", "two"]) == "a.b: unknown key; the keys are one, two"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*Outer.__annotations__, "n", "x"]), inner),
)


@given(JSON)
def test_any_json_is_accepted_or_refused_with_problems(data):
    data = json.loads(json.dumps(data))
    try:
        built = build(Outer, data)
    except ProblemsError:
        return
    assert isinstance(built, Outer)


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000, '{"a":' * 100_000])
def test_text_that_is_no_json_gives_the_chosen_problem(text):
    with pytest.raises(ValueError, match=r"^the header is not JSON$"):
        parse_json(text, "the header is not JSON")
