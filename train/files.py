"""Files of JSON that are whole, or not there."""

import json
from pathlib import Path
from typing import Any

from kwsd.errors import TrainingError


def write_json(path: Path, value: Any) -> None:
    """All at once: an interruption leaves what was there."""
    part = path.with_name(f"part-{path.name}")
    part.write_text(json.dumps(value, indent=1) + "\n")
    part.replace(path)


def read_json(path: Path) -> Any:
    """What `write_json` wrote.

    Raises:
        TrainingError: it holds something else.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise TrainingError(f"{path}: damaged ({error}); delete it, and run the command again that made it") from None
