"""The ledger: which clips a folder has, and the results of the finished ones, in one file on disk.

Law: nothing about a clip is kept in memory, so a folder may have any number of clips; and a finished
clip stays finished, whatever happens next. It is a SQLite database that one process has at a time,
and is removed when the output is written.
"""

import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from numpy.typing import NDArray

from kwsd.files import is_wav

_SCHEMA = """
CREATE TABLE IF NOT EXISTS maker (digest TEXT);
CREATE TABLE IF NOT EXISTS clips (
    path BLOB PRIMARY KEY,  -- relative to the folder, as bytes of the file system
    name BLOB,  -- its last part
    state TEXT,  -- size and times: a clip that has changed is not finished
    visit INTEGER,  -- the last run that found it
    posteriors BLOB  -- its result, null until it is finished
) WITHOUT ROWID
"""


class Found(NamedTuple):
    """How many clips a folder has, and an error for each subfolder that cannot be read."""

    n_clips: int
    errors: list[OSError]


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
                db.execute("UPDATE clips SET posteriors = NULL")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def remove(self) -> None:
        self._path.unlink()

    def find(self, folder: Path) -> Found:
        """Find the WAVs below a folder.

        Clips in a subfolder that cannot be read stay as they were. If there is no clip at all,
        nothing changes, because the folder may be on a disk that is not mounted.
        """
        closed: list[tuple[bytes, OSError]] = []
        with self._connection as db:
            [[last]] = db.execute("SELECT coalesce(max(visit), 0) FROM clips").fetchall()
            found = ((*wav, last + 1) for wav in _wavs(folder, closed))
            db.executemany(
                "INSERT INTO clips (path, name, state, visit) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (path) DO UPDATE SET visit = excluded.visit, state = excluded.state, "
                "posteriors = CASE WHEN state = excluded.state THEN posteriors END",
                found,
            )
            [[n_found]] = db.execute("SELECT count(*) FROM clips WHERE visit > ?", (last,)).fetchall()
            for parent, _ in closed:
                prefix = os.path.join(parent, b"")  # noqa: PTH118  (bytes)
                db.execute("UPDATE clips SET visit = ? WHERE substr(path, 1, ?) = ?", (last + 1, len(prefix), prefix))
            if n_found:
                db.execute("DELETE FROM clips WHERE visit <= ?", (last,))
        return Found(int(n_found), [error for _, error in closed])

    def counts(self) -> tuple[int, int]:
        """The number of clips, and of finished ones."""
        [[n_clips, n_done]] = self._connection.execute("SELECT count(*), count(posteriors) FROM clips").fetchall()
        return n_clips, n_done

    def n_sharing(self) -> int:
        """The number of clips that share their name with another one."""
        [[n]] = self._connection.execute(
            "SELECT coalesce(sum(n), 0) FROM (SELECT count(*) AS n FROM clips GROUP BY name HAVING n > 1)"
        ).fetchall()
        return int(n)

    def has(self, path: Path) -> bool:
        """Whether a path, relative to the folder, is one of the clips."""
        return bool(self._connection.execute("SELECT 1 FROM clips WHERE path = ?", (os.fsencode(path),)).fetchall())

    def missing(self, n: int) -> Iterator[list[bytes]]:
        """Paths of unfinished clips, up to `n` at a time, each once."""
        last = b""
        while batch := self._connection.execute(
            "SELECT path FROM clips WHERE path > ? AND posteriors IS NULL ORDER BY path LIMIT ?", (last, n)
        ).fetchall():
            last = batch[-1][0]
            yield [path for (path,) in batch]

    def add(self, paths: Iterable[bytes], results: Iterable[NDArray[Any]]) -> None:
        """Mark clips as finished, with an array for each."""
        with self._connection as db:
            rows = ((one.tobytes(), path) for path, one in zip(paths, results, strict=True))
            db.executemany("UPDATE clips SET posteriors = ? WHERE path = ?", rows)

    def done(self) -> Iterator[tuple[str, bytes]]:
        """Names and results of finished clips, ordered by name; a result is the bytes of its array.

        A name is the file's name. Clips that share one have their paths, relative to the folder.
        """
        for name, result in self._connection.execute(
            "WITH shared AS (SELECT name FROM clips GROUP BY name HAVING count(*) > 1) "
            "SELECT CASE WHEN name IN shared THEN path ELSE name END AS fname, posteriors FROM clips "
            "WHERE posteriors IS NOT NULL ORDER BY fname"
        ):
            yield name.decode("utf-8", "surrogateescape"), result


def _wavs(folder: Path, closed: list[tuple[bytes, OSError]]) -> Iterator[tuple[bytes, bytes, str]]:
    """Relative paths, names and states of all WAVs below a folder, without a list of them in memory.

    Links to folders are followed; a folder that is reached twice, as in a circle of links, counts once.

    Args:
        closed: receives the relative path of each folder that cannot be read, and the error.
    """
    root = os.fsencode(folder)
    waiting, visited = [b""], {_place(os.stat(root))}  # noqa: PTH116  (bytes)
    while waiting:
        parent = waiting.pop()
        try:
            with os.scandir(os.path.join(root, parent)) as entries:  # noqa: PTH118  (bytes)
                for entry in entries:
                    path = os.path.join(parent, entry.name)  # noqa: PTH118
                    if _is_folder(entry):
                        place = _place(entry.stat())
                        if place not in visited:
                            visited.add(place)
                            waiting.append(path)
                    elif is_wav(os.fsdecode(entry.name)):
                        yield path, entry.name, _state(entry)
        except OSError as error:
            closed.append((parent, error))


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    """Whether an entry is a folder. For a link to itself `is_dir` raises; it is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _state(entry: "os.DirEntry[bytes]") -> str:
    """Size and times. Tools that copy files preserve the modification time, but not the time of the last change."""
    try:
        status = entry.stat()
    except OSError:  # a dead link, for example
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
