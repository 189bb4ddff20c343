"""One checker from plain data (YAML, JSON, the command line) to a dataclass.

Law: type hints say what a value may be. ``Annotated[int, Between(1, 64)]`` adds a range, and a
method `problems()` of the dataclass adds rules about several fields. Every problem is reported at
once, each with the path of its key. This module uses only the standard library, because clients
import it.
"""

import difflib
import json
import os
import re
import reprlib
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_MOST_PROBLEMS = 20  # of one object or list
_HUGE = 1e300  # a whole number may be larger than any float
_NAMES = {
    str: "text in quotes",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    Path: "a path",
    dict: "keys and values",
    list: "a list",
    frozenset: "a list",
}

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlevel = 2


class ProblemsError(ValueError):
    """The data does not fit the dataclass.

    Attributes:
        problems: one line for each, beginning with the path of the key.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Between:
    """A range for a number: least to most, both included unless `above` excludes the least."""

    least: float
    most: float
    above: bool = False

    def problem(self, value: float) -> str | None:
        fits = self.least <= value <= self.most and not (self.above and value == self.least)
        shown = f"{value:g}" if isinstance(value, float) else _short.repr(value)  # :g fails for huge integers
        return None if fits else f"{shown} is not between {self.least:g} and {self.most:g}"


@dataclass(frozen=True, slots=True)
class Matching:
    """A pattern that text must match as a whole; `meaning` completes the sentence "'x' is not ..."."""

    pattern: str
    meaning: str

    def problem(self, value: str) -> str | None:
        return None if re.fullmatch(self.pattern, value) else f"{_short.repr(value)} is not {self.meaning}"


@dataclass(frozen=True, slots=True)
class Printable:
    """Text that can be shown: not empty, and without control characters."""

    def problem(self, value: str) -> str | None:
        return None if value and value.isprintable() else f"{_short.repr(value)} is not text that can be shown"


def parse_json(text: str | bytes, problem: str) -> Any:
    """Parse JSON from outside.

    Raises:
        ValueError: with `problem`, if the text is not JSON or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(problem) from None


def build(kind: type[T], data: object, prefix: str = "") -> T:
    """Make a dataclass from a dict with the same keys.

    A dataclass may have a method `problems() -> list[str]` for rules that concern several fields.
    It is called once the fields themselves are right.

    Args:
        prefix: what the paths of the keys begin with, such as "streams.hall.".

    Raises:
        ProblemsError: with every problem.
    """
    problems: list[str] = []
    built = _build(kind, data, prefix, problems)
    if problems:
        raise ProblemsError(problems)
    return built  # type: ignore[no-any-return]


def unknown_key(path: str, key: str, known: Iterable[str]) -> str:
    """The message for an unknown key, with the nearest known one or all of them."""
    known = list(known)
    close = difflib.get_close_matches(key[:80], known, 1)
    return f"{path}: unknown key; " + (f"did you mean {close[0]}?" if close else f"the keys are {', '.join(known)}")


def _build(kind: type, data: object, prefix: str, problems: list[str]) -> Any:
    if not isinstance(data, dict):
        problems.append(f"{prefix.rstrip('.') or 'the data'}: {_short.repr(data)} is not {_NAMES[dict]}")
        return None
    hints, required = _fields(kind)
    n_before, n_unknown = len(problems), 0
    values = {}
    for key, value in data.items():
        path = f"{prefix}{key:.80}" if isinstance(key, str) else f"{prefix}{_short.repr(key)}"
        if key in hints:
            values[key] = _convert(hints[key], value, path, problems)
        elif (n_unknown := n_unknown + 1) <= _MOST_PROBLEMS:
            problems.append(unknown_key(path, str(key), hints))
    if n_unknown > _MOST_PROBLEMS:
        problems.append(f"{prefix.rstrip('.') or 'the data'}: {n_unknown - _MOST_PROBLEMS} more unknown keys")
    problems.extend(f"{prefix}{key}: missing" for key in required if key not in data)
    if len(problems) > n_before:
        return None
    built = kind(**values)
    problems.extend(f"{prefix}{problem}" for problem in getattr(built, "problems", list)())
    return built


@cache
def _fields(kind: type) -> tuple[dict[str, Any], list[str]]:
    """The type hint of each field, and the fields without a default."""
    hints = get_type_hints(kind, include_extras=True)
    all_fields = fields(kind)
    required = [one.name for one in all_fields if one.default is MISSING and one.default_factory is MISSING]
    return {one.name: hints[one.name] for one in all_fields}, required


def _convert(hint: Any, value: object, path: str, problems: list[str]) -> Any:
    """Check one value against its hint; a problem is added to `problems`."""
    if type(value) is hint and hint is not float:  # most values, without the search below
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):  # only "T | None" occurs
        return None if value is None else _convert(arguments[0], value, path, problems)
    if origin is Annotated:
        return _convert_annotated(arguments, value, path, problems)
    if origin in _CONTAINERS and isinstance(value, dict if origin is dict else list):
        return _CONTAINERS[origin](arguments, value, path, problems)
    if origin is Literal and isinstance(value, str) and value in arguments:
        return value
    if is_dataclass(hint):
        return _build(hint, value, f"{path}.", problems)  # type: ignore[arg-type]
    fits, converted = _scalar(hint, value)
    if not fits:
        names = f"one of {', '.join(arguments)}" if origin is Literal else _NAMES[origin or hint]
        problems.append(f"{path}: {_short.repr(value)} is not {names}")
    return converted


def _scalar(hint: Any, value: object) -> tuple[bool, Any]:
    """Whether a plain value fits its hint, and the value in that type."""
    if hint is Any:
        return True, value
    if hint is Path and isinstance(value, str) and value and "\0" not in value:
        return True, expand(value)
    if hint is float:  # neither NaN nor infinite
        fits = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE
        return fits, float(value) if fits else None  # type: ignore[arg-type]
    return type(value) is hint, value


def expand(path: str) -> Path:
    """A path with ~ replaced. Unlike `Path.expanduser`, an unknown user's ~ stays and is no error."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _convert_annotated(arguments: tuple[Any, ...], value: object, path: str, problems: list[str]) -> Any:
    hint, *rules = arguments
    n_before = len(problems)
    converted = _convert(hint, value, path, problems)
    if len(problems) == n_before:
        problems.extend(f"{path}: {problem}" for rule in rules if (problem := rule.problem(converted)))
    return converted


def _dict_of(arguments: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    items = _until_many_problems(value.items(), path, problems)
    return {str(key): _convert(arguments[1], item, f"{path}.{key!s:.80}", problems) for key, item in items}


def _list_of(arguments: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    return [_convert(arguments[0], item, path, problems) for item in _until_many_problems(value, path, problems)]


def _until_many_problems(items: Iterable[T], path: str, problems: list[str]) -> Iterator[T]:
    n_before = len(problems)
    for item in items:
        if len(problems) - n_before >= _MOST_PROBLEMS:
            problems.append(f"{path}: the rest was not checked")
            return
        yield item


def _frozenset_of(arguments: tuple[Any, ...], value: Any, path: str, problems: list[str]) -> Any:
    converted = _list_of(arguments, value, path, problems)
    return None if problems else frozenset(converted)


_CONTAINERS: dict[Any, Callable[[tuple[Any, ...], Any, str, list[str]], Any]] = {
    dict: _dict_of,
    list: _list_of,
    frozenset: _frozenset_of,
}
