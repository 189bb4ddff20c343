"""Marks on kept clips: what was really said. A mark is the key `said` in the JSON file beside a clip."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kwsd.errors import LearnError
from kwsd.files import wavs_in, whole

RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True, slots=True)
class Marked:
    """A clip with a mark.

    Attributes:
        label: what kwsd heard.
        said: the word that was said; empty for none.
    """

    path: Path
    label: str
    said: str


def mark(path: Path, mark: str) -> Marked:
    """Mark a clip.

    Args:
        mark: right; wrong, if no word was said; or the word that was said.

    Raises:
        LearnError: there is no event beside the clip.
    """
    label = _event(path)["label"]
    said = {RIGHT: label, WRONG: ""}.get(mark, mark)
    set_said(path, said)
    return Marked(path, label, said)


def set_said(path: Path, said: str | None) -> None:
    """Mark a clip with the word that was said, or with nothing (empty). None removes the mark.

    Raises:
        LearnError: there is no event beside the clip.
    """
    event = {key: value for key, value in _event(path).items() if key != "said"}
    beside = path.with_suffix(".json")
    with whole(beside) as part:
        part.touch(0o600)
        owner = beside.stat()
        with suppress(PermissionError):  # only root may keep another user's
            os.chown(part, owner.st_uid, owner.st_gid)
        shutil.copymode(beside, part)
        part.write_text(json.dumps(event if said is None else event | {"said": said}) + "\n", encoding="utf-8")


def marked_in(folder: Path) -> list[Marked]:
    """The marked clips of a folder.

    Raises:
        LearnError: it is no folder, or no clip in it is marked.
    """
    if not folder.is_dir():
        raise LearnError(f"{folder}: no such folder of clips")
    events = [(path, _event(path)) for path in wavs_in(folder) if path.with_suffix(".json").exists()]
    found = [Marked(path, event["label"], str(event["said"])) for path, event in events if "said" in event]
    if not found:
        raise LearnError(f"{folder}: no clip is marked; `kwsd mark CLIP right` or `wrong` does it")
    return found


def _event(path: Path) -> dict[str, str]:
    if not path.name:
        raise LearnError(f"{path}: not a clip; name its WAV file")
    beside = path.with_suffix(".json")
    try:
        event = json.loads(beside.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise LearnError(f"{beside}: {reason}; a clip that kwsd kept has its event there") from None
    if not isinstance(event, dict) or not isinstance(event.get("label"), str):
        raise LearnError(f"{beside}: not the event of a clip")
    return event
