"""JSON files that are either complete or absent."""

import json
from pathlib import Path
from typing import Any

from kwsd.errors import TrainingError


def write_json(path: Path, value: Any) -> None:
    """Replace a file in one step: an interruption leaves the old file."""
    part = path.with_name(f"part-{path.name}")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """Read a file that `write_json` wrote.

    Raises:
        TrainingError: the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise TrainingError(f"{path}: damaged ({error}); delete it, then repeat the command that made it") from None
