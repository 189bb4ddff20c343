"""The files that results are written to: CSV, or Parquet if the name ends so.

Law: a file appears whole or not at all, and is on the disk when the function returns.
"""

import csv
import io
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from kwsd.errors import OutputError
from kwsd.files import whole

_ROWS = 4096
"""Rows of a row group, and in memory at once."""


def is_parquet(path: Path) -> bool:
    """Whether a file's name asks for Parquet."""
    return path.suffix.lower() == ".parquet"


def refuse_foreign(path: Path, header: list[str]) -> None:
    """Refuse to overwrite a file that has anything else than a table with this header; an empty one is replaced.

    Raises:
        OutputError: the file has other contents.
        OSError: it cannot be read.
    """
    if path.exists() and path.stat().st_size and not _has_header(path, header):
        raise OutputError(f"{path}: is no table that this command wrote; name another file")


def _has_header(path: Path, header: list[str]) -> bool:
    if not is_parquet(path):
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(header)
        begins = line.getvalue().encode("utf-8", "surrogateescape")
        with path.open("rb") as file:
            return file.read(len(begins)) == begins
    from pyarrow import ArrowException
    from pyarrow.parquet import read_schema

    try:
        return list(read_schema(path).names) == header
    except (ArrowException, OSError):
        return False


def check_parquet(path: Path) -> None:
    """Check, before hours of work, that Parquet can be written.

    Raises:
        OutputError: a package is missing.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise OutputError(f"{path}: Parquet needs pip install 'kwsd[corpus]'") from None


def write_csv(path: Path, header: list[str], rows: Iterable[Iterable[str]]) -> None:
    """Write rows of text.

    Raises:
        OSError: the file cannot be written.
    """
    # Names may be any bytes.
    with whole(path) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def write_parquet(path: Path, columns: dict[str, str], rows: Iterable[tuple[Any, ...]]) -> None:
    """Write rows of values.

    Args:
        columns: their names and types: string, float, double, or floats for a list of float.

    Raises:
        OSError: the file cannot be written.
    """
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    floats = pyarrow.list_(pyarrow.float32())
    types = (floats if kind == "floats" else pyarrow.type_for_alias(kind) for kind in columns.values())
    schema = pyarrow.schema(list(zip(columns, types, strict=True)))
    with whole(path) as part, part.open("wb") as file:
        with ParquetWriter(file, schema) as writer:
            for some in _slices(rows):
                values = zip(*some, strict=True)
                arrays = [
                    pyarrow.array(map(_valid, one), field.type) for one, field in zip(values, schema, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(arrays, schema))
        file.flush()
        os.fsync(file.fileno())


def _slices(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    iterator = iter(rows)
    while some := list(islice(iterator, _ROWS)):
        yield some


def _valid(value: Any) -> Any:
    r"""A text in which bytes that are no UTF-8 are written as \xff: Parquet has no other text."""
    return (
        value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if isinstance(value, str)
        else value
    )
