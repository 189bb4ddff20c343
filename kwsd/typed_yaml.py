"""YAML becomes dataclasses: their type hints say what a value may be, and every mistake is named.

The law of this file: it knows nothing of what the keys mean.
"""

import difflib
import os
import re
import types
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from kwsd.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """YAML 1.2's booleans: yes, no, on and off are keywords here, and must stay text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's name and kind)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As it is, but a key that is there twice is a mistake: PyYAML takes the last one."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := sorted({key for key in keys if keys.count(key) > 1}):
            raise ConfigError(f"{', '.join(twice)}: is there twice (near line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        data = yaml.load(path.read_text(), _Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold keys and values, not a {type(data).__name__}")
    return data


def build(kind: type, data: dict[str, Any], prefix: str, problems: list[str]) -> Any:
    """A dataclass of the values; None if there are problems, which are added.

    Args:
        prefix: what the keys' names begin with in messages.
    """
    hints = get_type_hints(kind)
    values = {}
    for key, value in data.items():
        path = f"{prefix}{key}"
        if not isinstance(key, str) or key not in hints:
            problems.append(unknown_key(path, str(key), list(hints)))
        else:
            values[key] = _convert(hints[key], value, path, problems)
    return kind(**values) if not problems else None


def _convert(hint: Any, value: Any, path: str, problems: list[str]) -> Any:
    """Check a value against a type hint; a mistake is added to `problems`."""
    if get_origin(hint) is types.UnionType:  # only "T | None" occurs
        return None if value is None else _convert(get_args(hint)[0], value, path, problems)
    if is_dataclass(hint) and isinstance(value, dict):
        return build(hint, value, f"{path}.", problems)  # type: ignore[arg-type]
    if get_origin(hint) is dict and isinstance(value, dict):
        return {str(key): _convert(get_args(hint)[1], item, f"{path}.{key}", problems) for key, item in value.items()}
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        problems.append(f"{path}: {value!r} is not one of {', '.join(get_args(hint))}")
    elif hint is Path and isinstance(value, str) and value and "\0" not in value:
        return Path(os.path.expanduser(value))  # noqa: PTH111  (unlike Path's, it leaves an unknown user's ~ alone)
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _HUGE:
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    else:
        problems.append(f"{path}: {value!r} is not {_NAMES.get(hint, 'a group of keys')}")
    return None


_HUGE = 1e300  # a whole number may be larger than any float
_NAMES = {str: "text (quote it?)", int: "a whole number", float: "a number", Path: "a path"}


def unknown_key(path: str, key: str, known: list[str]) -> str:
    """The message for it, with what was probably meant."""
    close = difflib.get_close_matches(key, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    return f"{path}: unknown key; {hint}"
