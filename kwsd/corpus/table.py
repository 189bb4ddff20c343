"""Parquet: a column of recordings, or of their addresses.

A column of recordings is one of bytes, or of `{bytes, path}`, as Hugging Face's `datasets` writes audio.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby, repeat
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kwsd.corpus.remote import File, opened, saved
from kwsd.corpus.source import Addressed, Clip, Found
from kwsd.errors import AudioError, ConfigError

_ROWS_AT_ONCE = 64
_BUFFER_BYTES = 2**20
"""Without a buffer, pyarrow reads a whole row group at once."""

_NAMES = ("path", "fname", "file_name", "file")
"""Columns that may name a recording, or have its address."""


class Content(Enum):
    """What a column has."""

    RECORDINGS = auto()
    TEXT = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Rows(Addressed):
    """Clips are named by the address of the Parquet file and the number of the row.

    Their places are the row group, and the row in it.
    """

    column: str = ""

    @property
    def identity(self) -> bytes:
        return b"\0".join((self._beginning, self.column.encode()))

    def _listed(self, file: File, unlisted: list[AudioError]) -> Iterator[Found]:
        address, row = file.address, 0
        with _parquet(address) as table:
            _check_column(table, address, self.column, Content.RECORDINGS)
            names = _names(table, self.column)
            for group in range(table.num_row_groups):
                for at in range(table.metadata.row_group(group).num_rows):
                    path = os.fsencode(f"{address}#{row:09}")
                    clip = Clip(path, os.fsencode(address), (group, at))
                    yield Found(clip, next(names) or path, f"{file.fingerprint} {group} {at}")
                    row += 1

    def read(self, clips: list[Clip]) -> Iterator[tuple[Clip, Path | AudioError]]:
        with TemporaryDirectory(prefix="kwsd-") as folder:
            copy = Path(folder) / "clip"
            ordered = sorted(clips, key=attrgetter("container", "place"))
            for container, own in groupby(ordered, attrgetter("container")):
                for clip, data in _cells(self._readable(container), self.column, list(own)):
                    if isinstance(data, AudioError):
                        yield clip, data
                    else:
                        yield clip, saved(data, copy)


def choose_column(address: str, wanted: str) -> tuple[str, Content]:
    """The column of a Parquet file to use: the wanted one, or the only one that can be meant.

    Raises:
        AudioError: the file cannot be read.
        ConfigError: there is no such column, or several can be meant.
    """
    with _parquet(address) as table:
        contents = {field.name: _content(field.type) for field in table.schema_arrow}
    usable = {name: content for name, content in contents.items() if content is not Content.OTHER}
    listing = f"the columns {', '.join(usable)}" if usable else "no column of bytes or text"
    if wanted:
        if wanted in usable:
            return wanted, usable[wanted]
        raise ConfigError(f"--column {wanted}: {address} has {listing}")
    recordings = [name for name, content in usable.items() if content is Content.RECORDINGS]
    for likely in (recordings, [name for name in _NAMES if name in usable][:1], list(usable)):
        if len(likely) == 1:
            return likely[0], usable[likely[0]]
    raise ConfigError(f"{address}: say with --column which one to use; it has {listing}")


def addresses_in(address: str, column: str) -> Iterator[str]:
    """The texts in a column of a Parquet file.

    Raises:
        AudioError: it cannot be read, or, after the last text, some are empty.
    """
    n_empty = 0
    with _parquet(address) as table:
        _check_column(table, address, column, Content.TEXT)
        for batch in table.iter_batches(columns=[column]):
            for text in batch.column(0).to_pylist():
                n_empty += not text
                if text:
                    yield text
    if n_empty:
        raise AudioError(f"{address}: {n_empty} rows of {column} are empty")


def _check_column(table: Any, address: str, column: str, wanted: Content) -> None:
    """Files of one corpus may differ."""
    columns = [field for field in table.schema_arrow if field.name == column]
    if len(columns) != 1 or _content(columns[0].type) is not wanted:
        what = "recordings" if wanted is Content.RECORDINGS else "text"
        raise AudioError(
            f"{address}: has no column {column} of {what}, which the first file has; label this one by itself"
        )


def _content(kind: Any) -> Content:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        return _content(kind.value_type)
    if types.is_struct(kind):
        return Content.RECORDINGS if kind.get_field_index("bytes") >= 0 else Content.OTHER
    if any(is_one(kind) for is_one in (types.is_binary, types.is_large_binary, types.is_binary_view)):
        return Content.RECORDINGS
    is_text = any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_string_view))
    return Content.TEXT if is_text else Content.OTHER


@contextmanager
def _parquet(address: str) -> Iterator[Any]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise AudioError(f"{address}: Parquet needs pip install 'kwsd[corpus]'") from None
    with opened(address) as file:
        yield ParquetFile(file, buffer_size=_BUFFER_BYTES)


def _names(table: Any, column: str) -> Iterator[bytes | None]:
    """The name of each row's recording, if the table has it."""
    schema = table.schema_arrow
    own = schema.field(column).type
    likely = [name for name in _NAMES if name in schema.names and _content(schema.field(name).type) is Content.TEXT]
    if own.num_fields and own.get_field_index("path") >= 0:
        likely = [f"{column}.path"]
    if not likely:
        yield from repeat(None, table.metadata.num_rows)
        return
    for batch in table.iter_batches(columns=likely[:1]):
        for value in batch.column(0).to_pylist():
            text = value["path"] if isinstance(value, dict) else value
            yield os.fsencode(text).rpartition(b"/")[2] if text else None


def _cells(address: str, column: str, clips: list[Clip]) -> Iterator[tuple[Clip, bytes | AudioError]]:
    """The bytes of each clip; `clips` in the order of their rows."""
    waiting = list(reversed(clips))
    try:
        with _parquet(address) as table:
            for group in sorted({clip.place[0] for clip in clips}):
                first = 0
                for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                    if not waiting or waiting[-1].place[0] != group:
                        break
                    end = (group, first + len(batch))
                    while waiting and waiting[-1].place < end:
                        clip = waiting.pop()
                        yield clip, _bytes(clip, batch.column(0)[clip.place[1] - first].as_py())
                    first += len(batch)
    except AudioError as error:
        yield from ((clip, error) for clip in reversed(waiting))
        return
    yield from ((clip, AudioError(f"{address}: has fewer rows than before")) for clip in reversed(waiting))


def _bytes(clip: Clip, cell: Any) -> bytes | AudioError:
    data = cell["bytes"] if isinstance(cell, dict) else cell
    if data is None:
        only = f", only the path {path}" if isinstance(cell, dict) and (path := cell.get("path")) else ""
        return AudioError(f"{os.fsdecode(clip.path)}: has no bytes{only}")
    return bytes(data)
