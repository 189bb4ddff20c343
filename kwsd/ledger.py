"""The ledger: which clips a folder has, and what each was found to be, in one file on disk.

The law of this file: nothing about a clip is kept in memory, so a folder may have any number
of them; and a clip that is done is done, whatever happens next. It is a SQLite database that
one process has at a time, and gone when the output is written.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import numpy as np

from kwsd.audio import FloatArray

_SCHEMA = """
CREATE TABLE IF NOT EXISTS maker (digest TEXT);
CREATE TABLE IF NOT EXISTS clips (
    path BLOB PRIMARY KEY,  -- from the folder, as the system spells it
    name BLOB,  -- its last part
    state TEXT,  -- size and times: a clip that has changed is not done
    visit INTEGER,  -- the run that saw it last
    posteriors BLOB  -- float32, null until it is done
) WITHOUT ROWID
"""


class Ledger:
    """A context manager; everything may raise `sqlite3.Error`, a full disk for one.

    Args:
        path: of the file. An earlier run's is gone on with.
        maker: names all that posteriors depend on beside the clip. What another one made is
            made anew.
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

    def look(self, folder: Path, on_closed: Callable[[OSError], object]) -> int:
        """Take stock of the WAVs below a folder.

        Args:
            on_closed: called for each folder that cannot be looked into. What is known of it stays.

        Returns:
            how many there are. Of none nothing is changed: the folder may be a disk that is not there now.
        """
        closed: list[bytes] = []

        def note(parent: bytes, error: OSError) -> None:
            closed.append(os.path.join(parent, b""))  # noqa: PTH118  (bytes)
            on_closed(error)

        with self._connection as db:
            [[last]] = db.execute("SELECT coalesce(max(visit), 0) FROM clips").fetchall()
            found = ((*wav, last + 1) for wav in _wavs(folder, note))
            db.executemany(
                "INSERT INTO clips (path, name, state, visit) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (path) DO UPDATE SET visit = excluded.visit, state = excluded.state, "
                "posteriors = CASE WHEN state = excluded.state THEN posteriors END",
                found,
            )
            [[n_found]] = db.execute("SELECT count(*) FROM clips WHERE visit > ?", (last,)).fetchall()
            for parent in closed:
                db.execute("UPDATE clips SET visit = ? WHERE substr(path, 1, ?) = ?", (last + 1, len(parent), parent))
            if n_found:
                db.execute("DELETE FROM clips WHERE visit <= ?", (last,))
        return int(n_found)

    def counts(self) -> tuple[int, int]:
        """How many clips there are, and how many are done."""
        [[n_clips, n_done]] = self._connection.execute("SELECT count(*), count(posteriors) FROM clips").fetchall()
        return n_clips, n_done

    def has(self, path: Path) -> bool:
        """Whether a path from the folder is one of the clips."""
        return bool(self._connection.execute("SELECT 1 FROM clips WHERE path = ?", (os.fsencode(path),)).fetchall())

    def missing(self, n: int) -> Iterator[list[bytes]]:
        """Paths of clips that are not done, up to `n` at a time, each once."""
        last = b""
        while batch := self._connection.execute(
            "SELECT path FROM clips WHERE path > ? AND posteriors IS NULL ORDER BY path LIMIT ?", (last, n)
        ).fetchall():
            last = batch[-1][0]
            yield [path for (path,) in batch]

    def add(self, paths: Iterable[bytes], posteriors: FloatArray) -> None:
        """These clips are done. Shape of the posteriors: (n_paths, n_labels), float32."""
        with self._connection as db:
            rows = ((row.tobytes(), path) for path, row in zip(paths, posteriors, strict=True))
            db.executemany("UPDATE clips SET posteriors = ? WHERE path = ?", rows)

    def done(self) -> Iterator[tuple[str, FloatArray]]:
        """Names and posteriors, shape (n_labels,), in the order of the names.

        A name is the file's; where two clips share one, names are the paths from the folder.
        """
        shared = self._connection.execute("SELECT 1 FROM clips GROUP BY name HAVING count(*) > 1 LIMIT 1").fetchall()
        column = "path" if shared else "name"
        for name, posteriors in self._connection.execute(
            f"SELECT {column}, posteriors FROM clips WHERE posteriors IS NOT NULL ORDER BY {column}"  # noqa: S608
        ):
            yield name.decode("utf-8", "surrogateescape"), np.frombuffer(posteriors, np.float32)


def _wavs(folder: Path, on_closed: Callable[[bytes, OSError], object]) -> Iterator[tuple[bytes, bytes, str]]:
    """Paths from the folder, names and states of all WAVs below it, with no list of them.

    Links to folders are followed; what is reached twice, as in a circle of links, counts once.
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
                    elif entry.name.lower().endswith(b".wav"):
                        yield path, entry.name, _state(entry)
        except OSError as error:
            on_closed(parent, error)


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    """A link that leads to itself is none; `is_dir` raises."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _state(entry: "os.DirEntry[bytes]") -> str:
    """A clip that cannot be looked at, such as a dead link, has none."""
    try:
        status = entry.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"  # tools that copy keep the second
