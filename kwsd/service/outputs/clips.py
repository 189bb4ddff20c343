"""Clips: a WAV file for each detection, and each near miss if they are wanted, with its event beside it.

Law: a thread of its own writes them. The detector's thread never waits for it: a full or slow disk
costs clips, which is logged, and nothing else. A file has its final name only when it is complete.
"""

import io
import logging
import os
import queue
import re
import stat
import threading
import time
import wave
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

from kwsd.audio import FloatArray
from kwsd.config import ClipsConfig
from kwsd.errors import OutputError
from kwsd.protocol.events import DetectionEvent, NearMiss
from kwsd.service.detector import Ended, Piece

log = logging.getLogger("kwsd")

Clipped = DetectionEvent | NearMiss
"""What may have a clip."""

_QUEUE_PIECES = 2000  # some seconds of many streams while the disk is slow
_LAST_EVENT_SECONDS, _FORGOTTEN_SECONDS = 1.0, 60.0  # the end of a stream may be lost, because the queue was full
_JOIN_SECONDS = 0.7
_LATE_SECONDS = 1.0  # of audio that may come before the event itself
_MOST_REMOVED = 10  # clips that make room for one on a full disk: another program may have filled it
_CLEANUP_SECONDS = 600.0  # how often clips that are too old are looked for
_OURS = re.compile(r"\d{8}T\d{6}\.\d{3}Z_.+_\d+\.(wav|json)(\.part)?")


@dataclass(slots=True)
class _Recent:
    """The last seconds of one stream, and the detections whose audio is not complete yet."""

    rate_hz: int = 0
    end_seconds: float = 0.0
    pieces: deque[Piece] = field(default_factory=deque)
    waiting: list[Clipped] = field(default_factory=list)
    touched_at: float = 0.0
    has_ended: bool = False


class Clips:
    """Keeps clips in a folder.

    Args:
        window_seconds: gives the length of the present model's windows.

    Raises:
        OutputError: the folder cannot be written to.
    """

    def __init__(self, config: ClipsConfig, window_seconds: Callable[[], float]) -> None:
        self._config, self._window_seconds = config, window_seconds
        self._streams: dict[str, _Recent] = {}
        self._queue: queue.Queue[Piece | Ended | Clipped | None] = queue.Queue(_QUEUE_PIECES)
        self._is_full = False
        self._look_at = self._cleanup_at = 0.0
        refuse_unwritable(config.folder)
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Piece | Ended | Clipped) -> None:
        """Take audio that was processed, or an event as it was sent. Never waits; any thread may call it."""
        if isinstance(item, NearMiss) and not self._config.near_misses:
            return
        try:
            self._queue.put_nowait(item)
            self._is_full = False
        except queue.Full:
            if not self._is_full:
                log.warning("clips: writing to %s takes too long; some clips are lost", self._config.folder)
            self._is_full = True

    def stop(self) -> None:
        """Write the waiting clips with the audio that has arrived, and end."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=_JOIN_SECONDS)
        except queue.Full:
            return
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        self._remove_partial()
        while True:
            try:
                item = self._queue.get(timeout=_LAST_EVENT_SECONDS)
            except queue.Empty:
                self._drop_ended()
                continue
            if item is None:
                break
            recent = self._streams.setdefault(item.stream, _Recent())
            recent.touched_at = time.monotonic()
            if isinstance(item, Clipped):
                recent.waiting.append(item)
            else:
                recent.has_ended = isinstance(item, Ended)
                if isinstance(item, Piece):
                    self._append(recent, item)
            self._drop_ended()
        for recent in self._streams.values():
            self._write(recent, recent.waiting)

    def _drop_ended(self) -> None:
        """Drop ended streams after a grace period: their last event arrives by another route than their audio."""
        now = time.monotonic()
        if now < self._look_at:  # looking at every piece of hundreds of streams would be wasteful
            return
        self._look_at = now + _LAST_EVENT_SECONDS
        for name, recent in list(self._streams.items()):
            if now - recent.touched_at > (_LAST_EVENT_SECONDS if recent.has_ended else _FORGOTTEN_SECONDS):
                self._write(recent, recent.waiting)
                del self._streams[name]
        if now >= self._cleanup_at:
            self._remove_old()
            self._cleanup_at = now + _CLEANUP_SECONDS

    def _append(self, recent: _Recent, piece: Piece) -> None:
        follows = abs(piece.seconds - recent.end_seconds) * piece.rate_hz < 1 and piece.rate_hz == recent.rate_hz
        if not follows:  # no more audio will come for the events before the jump
            self._write(recent, recent.waiting)
            recent.waiting, recent.rate_hz = [], piece.rate_hz
            recent.pieces.clear()
        recent.pieces.append(piece)
        recent.end_seconds = piece.seconds + len(piece.samples) / piece.rate_hz
        due = [event for event in recent.waiting if self._until(event) <= recent.end_seconds]
        self._write(recent, due)
        recent.waiting = [event for event in recent.waiting if event not in due]
        around = self._config.before_seconds + self._config.after_seconds
        kept = around + self._window_seconds() + _LATE_SECONDS
        while len(recent.pieces) > 1 and recent.pieces[1].seconds <= recent.end_seconds - kept:
            recent.pieces.popleft()

    def _until(self, event: Clipped) -> float:
        return event.end_seconds + self._config.after_seconds

    def _write(self, recent: _Recent, events: list[Clipped]) -> None:
        for event in events:
            samples = self._around(recent, event)
            if not len(samples):
                log.warning("clips: the audio of event %d is no longer kept; there is no clip of it", event.seq)
                continue
            self._save_or_give_up(event, samples, recent.rate_hz)
        if events:
            self._remove_old()

    def _save_or_give_up(self, event: Clipped, samples: FloatArray, rate_hz: int) -> None:
        """Save a clip, or log why there is none. On a full disk, the oldest clips make room."""
        for n_removed in range(_MOST_REMOVED + 1):
            try:
                self._save(event, samples, rate_hz)
            except OSError as error:
                is_full = error.errno in (ENOSPC, EDQUOT) and n_removed < _MOST_REMOVED
                if is_full and self._remove_oldest():
                    continue
                log.warning("clips: %s: event %d has no clip (%s)", self._config.folder, event.seq, error.strerror)
            else:
                if n_removed:
                    log.warning("clips: %s: the disk is full; removed the oldest %d", self._config.folder, n_removed)
            return

    def _remove_oldest(self) -> bool:
        """Remove the oldest clip that can be removed. Returns whether there was one."""
        with suppress(OSError):
            return any(self._remove(path) for _, _, path in self._clips_by_age())
        return False

    def _around(self, recent: _Recent, event: Clipped) -> FloatArray:
        """The audio of an event, as far as it has arrived. Shape: (any,)."""
        if not recent.pieces:
            return np.empty(0, np.float32)
        began = recent.pieces[0].seconds
        first = round((event.start_seconds - self._config.before_seconds - began) * recent.rate_hz)
        last = round((self._until(event) - began) * recent.rate_hz)
        return np.concatenate([piece.samples for piece in recent.pieces])[max(0, first) : max(0, last)]

    def _save(self, event: Clipped, samples: FloatArray, rate_hz: int) -> None:
        moment = event.time.replace(":", "").replace("-", "")
        name = f"{moment}_{_file_name(event.stream)}_{_file_name(event.label)}_{event.seq}.wav"
        path = self._config.folder / name
        contents = {path.with_suffix(".json"): event.to_json().encode() + b"\n", path: _wav(samples, rate_hz)}
        parts = {whole: whole.with_name(f"{whole.name}.part") for whole in contents}
        try:
            for whole, content in contents.items():
                _write_private(parts[whole], content)
            for whole, part in parts.items():
                part.replace(whole)
        except BaseException:
            for left in (*parts.values(), path.with_suffix(".json")):
                left.unlink(missing_ok=True)
            raise

    def _ours(self, ending: str) -> list[Path]:
        return [path for path in self._config.folder.glob(f"*{ending}") if _OURS.fullmatch(path.name)]

    def _remove_partial(self) -> None:
        """Remove the incomplete files of a daemon that was killed."""
        with suppress(OSError):
            events = [path for path in self._ours(".json") if not path.with_suffix(".wav").exists()]
            for path in (*self._ours(".part"), *events):
                path.unlink(missing_ok=True)

    def _remove_old(self) -> None:
        """Remove the oldest clips while there are too many, and those that are too old."""
        try:
            clips = self._clips_by_age()
            total, most = sum(size for _, size, _ in clips), self._config.max_megabytes * 1e6
            n_old = 0
            for age_seconds, size, path in clips:
                is_old = age_seconds > self._config.max_days * 86400
                if (total > most or is_old) and self._remove(path):
                    total -= size
                    n_old += is_old
            if n_old:
                log.info("clips: removed %d that are older than %g days", n_old, self._config.max_days)
        except OSError as error:
            log.warning("clips: %s: old clips cannot be removed (%s)", self._config.folder, error.strerror)

    def _remove(self, path: Path) -> bool:
        """Remove a clip and its event, or log why not. Returns whether it is gone."""
        try:
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
        except OSError as error:
            log.warning("clips: %s cannot be removed (%s)", path, error.strerror)
            return False
        return True

    def _clips_by_age(self) -> list[tuple[float, int, Path]]:
        """Age in seconds, size in bytes, path: clips from the future (the clock was set back), then the oldest."""
        now, clips = time.time(), []
        for path in self._ours(".wav"):
            with suppress(FileNotFoundError):  # just removed by another program
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    clips.append((now - status.st_mtime, status.st_size, path))
        return sorted(clips, key=lambda clip: (clip[0] >= 0, -clip[0]))


def is_clip(path: Path) -> bool:
    """Whether a file has the name of a kept clip."""
    return path.suffix == ".wav" and _OURS.fullmatch(path.name) is not None


def _file_name(text: str) -> str:
    """A stream's or label's name, with every letter replaced that a file name should not have."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)[:40]


def _wav(samples: FloatArray, rate_hz: int) -> bytes:
    """16-bit PCM. libsndfile would need a callback to write into memory, which `MemoryDenyWriteExecute` forbids."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner and group can read. What was at its path is removed, a link too."""
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o640), "wb") as file:  # noqa: PTH123  (a descriptor)
        file.write(content)


def refuse_unwritable(folder: Path) -> None:
    """Try the folder of the clips.

    Raises:
        OutputError: it cannot be written to.
    """
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"clips: {folder}: {error.strerror}; create this folder, and let kwsd write to it") from None
