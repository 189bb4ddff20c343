"""Parquet: a column of recordings, or of their addresses.

A column of recordings is one of bytes, or of `{bytes, path}`, as Hugging Face's `datasets` writes audio.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kwsd.corpus.remote import files_at, opened
from kwsd.corpus.source import Addressed, Clip, Closed, Found
from kwsd.errors import AudioError, ConfigError

_ROWS = 64
"""Rows in memory at once."""

_NAMES = ("path", "fname", "file_name", "file")
"""Columns that may name a recording, or have its address."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column that has recordings, or else their addresses."""

    name: str
    has_recordings: bool


@dataclass(frozen=True, slots=True)
class Rows(Addressed):
    """Clips are named by the address of the Parquet file and the number of the row."""

    column: str = ""

    def find(self, closed: list[Closed]) -> Iterator[Found]:
        for source in self.sources:
            for part, state in files_at(source):
                try:
                    yield from _listed(part, state, self.column)
                except AudioError as error:
                    closed.append(Closed(os.fsencode(f"{part}#"), error))

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        with TemporaryDirectory(prefix="kwsd-") as folder:
            for (part, group), own in groupby(clips, _part_and_group):
                yield from _recordings(part, group, self.column, list(own), Path(folder) / "clip")


def column_in(address: str, wanted: str) -> Column:
    """The column of a Parquet file to use: the wanted one, or the only one that can be meant.

    Raises:
        AudioError: the file cannot be read.
        ConfigError: there is no such column, or several can be meant.
    """
    with _parquet(address) as file:
        schema = file.schema_arrow
    kinds = {field.name: _has_recordings(field.type) for field in schema}
    columns = {name: is_audio for name, is_audio in kinds.items() if is_audio is not None}
    if wanted:
        if wanted in columns:
            return Column(wanted, columns[wanted])
        raise ConfigError(f"--column {wanted}: {address} has {_listing(columns)}")
    audio = [name for name, is_audio in columns.items() if is_audio]
    for likely in (audio, [name for name in _NAMES if name in columns][:1], list(columns)):
        if len(likely) == 1:
            return Column(likely[0], columns[likely[0]])
    raise ConfigError(f"{address}: say with --column which one to use; it has {_listing(columns)}")


def addresses_in(address: str, column: str) -> Iterator[str]:
    """The texts in a column of a Parquet file.

    Raises:
        AudioError: it cannot be read.
    """
    with _parquet(address) as file:
        for batch in file.iter_batches(columns=[column]):
            yield from (text for text in batch.column(0).to_pylist() if text)


def _listing(columns: dict[str, bool]) -> str:
    return f"the columns {', '.join(columns)}" if columns else "no column of bytes or text"


def _has_recordings(kind: Any) -> bool | None:
    """Whether a column of this type has recordings; None if it has no addresses either."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return True if kind.get_field_index("bytes") >= 0 else None
    if types.is_binary(kind) or types.is_large_binary(kind):
        return True
    return False if types.is_string(kind) or types.is_large_string(kind) else None


@contextmanager
def _parquet(address: str) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise AudioError(f"{address}: Parquet needs pip install 'kwsd[corpus]'") from None
    with opened(address) as file:
        yield ParquetFile(file)


def _listed(part: str, state: str, column: str) -> Iterator[Found]:
    with _parquet(part) as file:
        names = _names(file, column)
        row = 0
        for group in range(file.num_row_groups):
            for at in range(file.metadata.row_group(group).num_rows):
                path = os.fsencode(f"{part}#{row:09}")
                place = f"{group} {at} {len(os.fsencode(part))}"
                yield Found(Clip(path, place), next(names) or path, f"{state} {place}")
                row += 1


def _names(file: Any, column: str) -> Iterator[bytes | None]:
    """The name of each row's recording, if the table has it."""
    schema = file.schema_arrow
    own = schema.field(column).type
    likely = [name for name in _NAMES if name in schema.names and _has_recordings(schema.field(name).type) is False]
    if own.num_fields and own.get_field_index("path") >= 0:
        likely = [f"{column}.path"]
    if not likely:
        yield from repeat(None)
    for batch in file.iter_batches(columns=likely[:1]):
        for value in batch.column(0).to_pylist():
            text = value["path"] if isinstance(value, dict) else value
            yield os.fsencode(text).rpartition(b"/")[2] if text else None


def _part_and_group(clip: Clip) -> tuple[str, int]:
    """The address of the Parquet file that has a clip, and the number of the row group."""
    group, _, n_letters = map(int, clip.place.split())
    return os.fsdecode(clip.path[:n_letters]), group


def _recordings(
    part: str, group: int, column: str, clips: list[Clip], target: Path
) -> Iterator[tuple[Clip, Path | AudioError]]:
    """A file for each clip of a row group; `clips` in the order of their rows."""
    waiting = iter(clips)
    clip = next(waiting, None)
    try:
        with _parquet(part) as file:
            first = 0
            for batch in file.iter_batches(_ROWS, row_groups=[group], columns=[column]):
                while clip and (at := int(clip.place.split()[1]) - first) < len(batch):
                    value = batch.column(0)[at].as_py()
                    data = value["bytes"] if isinstance(value, dict) else value
                    target.write_bytes(data or b"")
                    yield clip, target
                    clip = next(waiting, None)
                first += len(batch)
                if clip is None:
                    return
    except AudioError as error:
        while clip:
            yield clip, error
            clip = next(waiting, None)
