"""JSON files that are either complete or absent."""

import json
from pathlib import Path
from typing import Any

from kwsd.errors import TrainingError
from kwsd.files import whole
from kwsd.typed import parse_json


def write_json(path: Path, value: Any) -> None:
    """Replace a file in one step: an interruption leaves the old file."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a file that `write_json` wrote.

    Raises:
        TrainingError: the file is not valid JSON.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"), "not JSON")
    except ValueError as error:
        raise TrainingError(f"{path}: damaged ({error}); delete it, then repeat the command that made it") from None
