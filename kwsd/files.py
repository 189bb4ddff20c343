"""Which files are recordings, and files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_COMPRESSED = (".flac", ".ogg", ".opus", ".mp3")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside the file to write to. It gets the file's name at the end, or is removed after an error.

    A link stays a link, and its file is written.
    """
    part = part_of(path)
    try:
        yield part
        part.replace(os.path.realpath(path))
    finally:
        part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """The path that `whole` writes to. It keeps the suffix, by which some libraries choose the format."""
    target = Path(os.path.realpath(path))
    return target.with_name(f".kwsd-part-{target.name}")


def is_wav(name: str) -> bool:
    """Whether a file's name is that of a WAV. `._x.wav` is not: a Mac keeps a file's attributes there."""
    return name.lower().endswith(".wav") and not name.startswith("._")


def is_recording(name: str) -> bool:
    """Whether a file's name is that of a WAV, or of a compressed recording that kwsd reads."""
    return is_wav(name) or (name.lower().endswith(_COMPRESSED) and not name.startswith("._"))


def wavs_in(folder: Path, also_below: bool = False) -> list[Path]:
    """The WAVs in a folder, and in the folders below it if wanted, in order."""
    found = folder.glob("**/*" if also_below else "*")
    return sorted(path for path in found if is_wav(path.name) and not path.is_dir())
