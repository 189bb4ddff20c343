"""The ledger: which clips a corpus has, and the results of the finished ones, in one file on disk.

Law: nothing about a clip is kept in memory, so a corpus may have any number of clips; and a finished
clip stays finished, whatever happens next. It is a SQLite database that one process has at a time,
and is removed when the output has every clip that can be read.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

from numpy.typing import NDArray

from kwsd.corpus.source import Clip, Found
from kwsd.errors import AudioError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS maker (digest TEXT);
CREATE TABLE IF NOT EXISTS clips (
    path BLOB PRIMARY KEY,  -- what identifies it in its corpus
    container BLOB, first INTEGER, second INTEGER,  -- of a clip that is no file itself: where it is
    name BLOB,  -- what it is called in the output, if no other clip is called so
    fingerprint TEXT,  -- a clip whose fingerprint has changed is not finished
    visit INTEGER,  -- the last run that found it
    result BLOB  -- null until it is finished
) WITHOUT ROWID
"""


class Row(NamedTuple):
    """A finished clip: its path; its name, or its path if another clip has the same name; the bytes of its result."""

    path: str
    fname: str
    result: bytes


class Ledger:
    """A context manager. Every method may raise `sqlite3.Error`, on a full disk for example.

    Args:
        path: of the file. An earlier run's file is resumed.
        maker: identifies everything that results depend on except for the clips. Results of
            another maker are computed again.
    """

    def __init__(self, path: Path, maker: str) -> None:
        self._path = path
        self._connection = sqlite3.connect(path, timeout=0)
        self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._connection.executescript(_SCHEMA)
        with self._connection as db:
            if db.execute("SELECT digest FROM maker").fetchall() != [(maker,)]:
                db.execute("DELETE FROM maker")
                db.execute("INSERT INTO maker VALUES (?)", (maker,))
                db.execute("UPDATE clips SET result = NULL")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        """Close the file. If no clip is finished, it is of no use to a next run, and is removed."""
        with closing(self._connection), suppress(sqlite3.Error):
            if not self.counts()[1]:
                self.remove()

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)

    def find(self, found: Iterable[Found], unlisted: list[AudioError]) -> int:
        """Note the clips that a corpus has now, and forget the others.

        If a part cannot be listed, or there is no clip at all, as where a disk is not mounted, none
        is forgotten.

        Args:
            unlisted: errors of such parts; read after the last clip of `found`.

        Returns:
            the number of clips that were found.
        """
        with self._connection as db:
            [[last]] = db.execute("SELECT coalesce(max(visit), 0) FROM clips").fetchall()
            db.executemany(
                "INSERT INTO clips (path, container, first, second, name, fingerprint, visit) "
                "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (path) DO UPDATE SET "
                "container = excluded.container, first = excluded.first, second = excluded.second, "
                "name = excluded.name, fingerprint = excluded.fingerprint, visit = excluded.visit, "
                "result = CASE WHEN fingerprint = excluded.fingerprint THEN result END",
                ((clip.path, clip.container, *clip.place, name, mark, last + 1) for clip, name, mark in found),
            )
            [[n_found]] = db.execute("SELECT count(*) FROM clips WHERE visit > ?", (last,)).fetchall()
            if n_found and not unlisted:
                db.execute("DELETE FROM clips WHERE visit <= ?", (last,))
        return int(n_found)

    def counts(self) -> tuple[int, int]:
        """The number of clips, and of finished ones."""
        [[n_clips, n_done]] = self._connection.execute("SELECT count(*), count(result) FROM clips").fetchall()
        return n_clips, n_done

    def n_sharing(self) -> int:
        """The number of clips that share their name with another one."""
        [[n]] = self._connection.execute(
            "SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM clips GROUP BY name HAVING n > 1)"
        ).fetchall()
        return int(n)

    def has(self, fingerprint: str) -> bool:
        """Whether the local file with this fingerprint is one of the clips, or contains one."""
        query = "SELECT 1 FROM clips WHERE fingerprint = ? OR substr(fingerprint, 1, ?) = ? LIMIT 1"
        within = f"{fingerprint} "
        return bool(self._connection.execute(query, (fingerprint, len(within), within)).fetchall())

    def missing(self, n: int) -> Iterator[list[Clip]]:
        """Unfinished clips, up to `n` at a time, each once, ordered by path."""
        last = b""
        while batch := self._connection.execute(
            "SELECT path, container, first, second FROM clips WHERE path > ? AND result IS NULL ORDER BY path LIMIT ?",
            (last, n),
        ).fetchall():
            last = batch[-1][0]
            yield [Clip(path, container, (first, second)) for path, container, first, second in batch]

    def add(self, paths: Iterable[bytes], results: Iterable[NDArray[Any]]) -> None:
        """Mark clips as finished, with an array for each."""
        with self._connection as db:
            rows = ((one.tobytes(), path) for path, one in zip(paths, results, strict=True))
            db.executemany("UPDATE clips SET result = ? WHERE path = ?", rows)

    def done(self) -> Iterator[Row]:
        """Finished clips, ordered by fname. Clips that share a name are called by their paths."""
        for path, name, result in self._connection.execute(
            "WITH shared AS (SELECT name FROM clips GROUP BY name HAVING count(*) > 1) "
            "SELECT path, CASE WHEN name IN shared THEN path ELSE name END AS fname, result FROM clips "
            "WHERE result IS NOT NULL ORDER BY fname"
        ):
            yield Row(path.decode("utf-8", "surrogateescape"), name.decode("utf-8", "surrogateescape"), result)
