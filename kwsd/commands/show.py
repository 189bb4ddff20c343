"""Events on a terminal: a line for each, and below them a level meter of each stream that moves.

Law: only a terminal gets the board. Elsewhere `kwsd listen` prints lines, and `kwsd run` nothing.
"""

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from kwsd.client import subscribe
from kwsd.errors import SocketError
from kwsd.plain import meter, plain
from kwsd.protocol.events import DetectionEvent, Event, Hello, Scores, SourceDown
from kwsd.protocol.subscription import Since
from kwsd.protocol.text import readable

_REDRAW_SECONDS = 0.1
_BARS = " ▁▂▃▄▅▆▇█"


class Board:
    """Prints events, and redraws the board below them: the level of each stream, and its scores as bars.

    Args:
        bars: whether to show the scores.
        n_streams: how many streams to show. A board of one line spares what others write to the terminal.
    """

    def __init__(self, out: TextIO, bars: bool, n_streams: int) -> None:
        self._out, self._bars, self._n_streams = out, bars, n_streams
        self._lines: dict[str, str] = {}  # of the board, by stream
        self._n_drawn = 0
        self._drawn_at = 0.0

    def show(self, event: Event) -> None:
        """Print an event, or update the board."""
        if isinstance(event, Scores):
            self._lines[event.stream] = self._line(event)
            if time.monotonic() - self._drawn_at >= _REDRAW_SECONDS:
                self._draw("")
            return
        if isinstance(event, SourceDown):
            self._lines.pop(event.stream, None)
        self._draw(readable(event) + "\n")

    def clear(self) -> None:
        """Remove the board."""
        self._lines.clear()
        self._draw("")

    def _draw(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        board = [line[:width] for line in list(self._lines.values())[: self._n_streams]]
        up = f"\x1b[{self._n_drawn - 1}A" if self._n_drawn > 1 else ""
        erase = f"{up}\r\x1b[J" if self._n_drawn else ""
        self._out.write(erase + text + "\n".join(board))
        self._out.flush()
        self._n_drawn, self._drawn_at = len(board), time.monotonic()

    def _line(self, event: Scores) -> str:
        stream = f"{plain(event.stream):10.20}"
        if not self._bars:
            return f"{stream} {meter(event.level_dbfs)}"
        bars = (f"{plain(label)}{_BARS[round(8 * score)]}" for label, score in event.scores.items())
        return f"{stream}{max(event.level_dbfs, -99):4.0f} dBFS  {' '.join(bars)}"


def printer(as_json: bool, scores: bool) -> Callable[[Event], None]:
    """What prints the events of `kwsd listen`."""
    if scores and not as_json and sys.stdout.isatty():
        return Board(sys.stdout, bars=True, n_streams=8).show
    return lambda event: print(event.to_json() if as_json else readable(event), flush=True)


def watch_own(path: Path) -> None:
    """Show the events of the daemon in this process, and a level meter until its first detection.

    The daemon's own socket brings them, as it does for `kwsd listen`: a terminal that does not read delays nothing.
    """
    board, since = Board(sys.stdout, bars=False, n_streams=1), None
    with suppress(SocketError):  # the daemon has ended
        for event in subscribe(path, scores=True, reconnect=False):
            board.show(event)
            if isinstance(event, DetectionEvent):
                since = Since(event.boot_id, event.seq)
                break
        board.clear()
        for event in subscribe(path, since=since, reconnect=False):
            if not isinstance(event, Hello):
                board.show(event)
