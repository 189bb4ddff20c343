"""Reads a YAML file of keys and values: the configuration.

Law: a few bytes of it cannot occupy the reader, and whatever is wrong is said in one line.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from kwsd.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Reads only true and false as booleans, as YAML 1.2 does: yes, no, on and off are keywords here."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (PyYAML's name and kind)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As in PyYAML, but without aliases: a few of them can stand for more values than memory holds."""
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()  # type: ignore[no-untyped-call]
            line = alias.start_mark.line + 1
            raise ConfigError(f"line {line}: *{alias.anchor} is an alias; write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As in PyYAML, but a repeated key is an error; PyYAML would take the last one."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if twice := sorted(key for key, n in keys.items() if n > 1):
            raise ConfigError(f"{', '.join(twice)}: is used twice (near line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a file in UTF-8.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8-sig"), _Loader)  # noqa: S506  (a SafeLoader)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold keys and values, not a {type(data).__name__}")
    return data
