"""The kept clips, as the live page shows them: list, play, mark, delete."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from kwsd.errors import LearnError
from kwsd.marks import set_said
from kwsd.service.outputs.clips import is_clip

_MOST_LISTED = 200


class KeptClips:
    """The clips of a folder, the newest first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def newest(self) -> list[dict[str, Any]]:
        """The event of each of the newest clips (at most 200), its file's name, and its mark (`said`, or None)."""
        names = sorted((path.name for path in self._folder.glob("*.wav") if is_clip(path)), reverse=True)
        found = []
        for name in names[:_MOST_LISTED]:
            with suppress(OSError, ValueError):  # just removed
                event = json.loads((self._folder / name).with_suffix(".json").read_text(encoding="utf-8"))
                if isinstance(event, dict):  # another program may have written it
                    found.append({"said": None} | event | {"name": name})
        return found

    def path(self, name: str) -> Path | None:
        """The file of a clip; None if there is no such clip."""
        path = self._folder / name
        with suppress(OSError):  # a name that is too long
            if path.name == name and is_clip(path) and path.is_file():
                return path
        return None

    def mark(self, path: Path, said: str | None) -> None:
        """Mark what was said in a clip: a word, or nothing (empty); None removes the mark.

        Raises:
            ValueError: there is no event beside it.
        """
        try:
            set_said(path, said)
        except LearnError as error:
            raise ValueError(str(error)) from None

    def delete(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
