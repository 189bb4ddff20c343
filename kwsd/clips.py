"""Recordings of what fired: a WAV file for each detection, and its event beside it.

The law of this file: writing has a thread of its own. The ear hands over what it hears and
never waits; a disk that is full or slow costs clips, which is logged, and nothing else.
Nothing is half-written: a file has its name when it is whole.
"""

import io
import logging
import queue
import re
import threading
import time
import wave
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kwsd.audio import FloatArray
from kwsd.config import ClipsConfig
from kwsd.errors import OutputError
from kwsd.events import DetectionEvent

log = logging.getLogger("kwsd")

_QUEUE_PIECES = 2000  # some seconds of many streams, while a disk is slow
_LAST_EVENT_SECONDS = 1.0
_JOIN_SECONDS = 0.7
_WINDOW_SECONDS = 2.0  # no less than a model hears at once
_ROOM_SECONDS = 600.0  # how often clips are looked for that are too old
_OURS = re.compile(r"\d{8}T\d{6}\.\d{3}Z_.+_\d+\.(wav|json)(\.part)?")


@dataclass(frozen=True, slots=True)
class Piece:
    """Audio of a stream, as it was heard: its first sample is at `seconds` of stream time."""

    stream: str
    rate_hz: int
    seconds: float
    samples: FloatArray


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes of a stream, or it goes on elsewhere."""

    stream: str


@dataclass(slots=True)
class _Recent:
    """The last seconds of one stream, and the detections whose audio has not all come."""

    rate_hz: int = 0
    end_seconds: float = 0.0
    pieces: deque[Piece] = field(default_factory=deque)
    waiting: list[DetectionEvent] = field(default_factory=list)
    ended_at: float | None = None


class Clips:
    """Keeps clips in a folder.

    Raises:
        OutputError: nothing can be written there.
    """

    def __init__(self, config: ClipsConfig) -> None:
        self._config = config
        self._streams: dict[str, _Recent] = {}
        self._queue: queue.Queue[Piece | Ended | DetectionEvent | None] = queue.Queue(_QUEUE_PIECES)
        self._is_full = False
        self._look_at = self._room_at = 0.0
        _refuse_unwritable(config.folder)
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, item: Piece | Ended | DetectionEvent) -> None:
        """Audio that was heard, or an event as it went out. Never waits; any thread may call it."""
        try:
            self._queue.put_nowait(item)
            self._is_full = False
        except queue.Full:
            if not self._is_full:
                log.warning("clips: %s takes too long to write to; some are lost", self._config.folder)
            self._is_full = True

    def stop(self) -> None:
        """Write what waits, with the audio that there is."""
        if not self._thread.is_alive():
            return
        try:
            self._queue.put(None, timeout=_JOIN_SECONDS)
        except queue.Full:
            return
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        self._sweep()
        while True:
            try:
                item = self._queue.get(timeout=_LAST_EVENT_SECONDS)
            except queue.Empty:
                self._forget()
                continue
            if item is None:
                break
            recent = self._streams.setdefault(item.stream, _Recent())
            if isinstance(item, DetectionEvent):
                recent.waiting.append(item)
            elif isinstance(item, Ended):
                recent.ended_at = time.monotonic()
            else:
                recent.ended_at = None
                self._hear(recent, item)
            self._forget()
        for recent in self._streams.values():
            self._write(recent, recent.waiting)

    def _forget(self) -> None:
        """Streams that have ended, once their last event must have come: it takes another way than the audio."""
        now = time.monotonic()
        if now < self._look_at:  # not for every piece of hundreds of streams
            return
        self._look_at = now + _LAST_EVENT_SECONDS
        for name, recent in list(self._streams.items()):
            if recent.ended_at is not None and now - recent.ended_at > _LAST_EVENT_SECONDS:
                self._write(recent, recent.waiting)
                del self._streams[name]
        if now >= self._room_at:
            self._make_room()
            self._room_at = now + _ROOM_SECONDS

    def _hear(self, recent: _Recent, piece: Piece) -> None:
        follows = abs(piece.seconds - recent.end_seconds) * piece.rate_hz < 1 and piece.rate_hz == recent.rate_hz
        if not follows:  # nothing more will come of what was before
            self._write(recent, recent.waiting)
            recent.waiting, recent.rate_hz = [], piece.rate_hz
            recent.pieces.clear()
        recent.pieces.append(piece)
        recent.end_seconds = piece.seconds + len(piece.samples) / piece.rate_hz
        due = [event for event in recent.waiting if self._until(event) <= recent.end_seconds]
        self._write(recent, due)
        recent.waiting = [event for event in recent.waiting if event not in due]
        kept = self._config.before_seconds + self._config.after_seconds + _WINDOW_SECONDS
        while recent.pieces[0].seconds < recent.end_seconds - kept and len(recent.pieces) > 1:
            recent.pieces.popleft()

    def _until(self, event: DetectionEvent) -> float:
        return event.end_seconds + self._config.after_seconds

    def _write(self, recent: _Recent, events: list[DetectionEvent]) -> None:
        for event in events:
            samples = self._around(recent, event)
            if not len(samples):
                log.warning("clips: the audio of event %d has gone already; it is not recorded", event.seq)
                continue
            try:
                self._save(event, samples, recent.rate_hz)
            except OSError as error:
                log.warning("clips: %s: event %d is not recorded (%s)", self._config.folder, event.seq, error.strerror)
        if events:
            self._make_room()

    def _around(self, recent: _Recent, event: DetectionEvent) -> FloatArray:
        """What is there of an event's audio. Shape: (any,)."""
        if not recent.pieces:
            return np.empty(0, np.float32)
        began = recent.pieces[0].seconds
        first = round((event.start_seconds - self._config.before_seconds - began) * recent.rate_hz)
        last = round((self._until(event) - began) * recent.rate_hz)
        return np.concatenate([piece.samples for piece in recent.pieces])[max(0, first) : max(0, last)]

    def _save(self, event: DetectionEvent, samples: FloatArray, rate_hz: int) -> None:
        moment = event.time.replace(":", "").replace("-", "")
        name = f"{moment}_{_file_name(event.stream)}_{_file_name(event.label)}_{event.seq}.wav"
        path = self._config.folder / name
        contents = {path.with_suffix(".json"): event.to_json().encode() + b"\n", path: _wav(samples, rate_hz)}
        parts = {whole: whole.with_name(f"{whole.name}.part") for whole in contents}
        try:
            for whole, content in contents.items():
                parts[whole].write_bytes(content)
            for whole, part in parts.items():
                part.replace(whole)
        except BaseException:
            for left in (*parts.values(), path.with_suffix(".json")):
                left.unlink(missing_ok=True)
            raise

    def _ours(self, ending: str) -> list[Path]:
        return [path for path in self._config.folder.glob(f"*{ending}") if _OURS.fullmatch(path.name)]

    def _sweep(self) -> None:
        """What a daemon that was killed has left half-done."""
        with suppress(OSError):
            events = [path for path in self._ours(".json") if not path.with_suffix(".wav").exists()]
            for path in (*self._ours(".part"), *events):
                path.unlink(missing_ok=True)

    def _make_room(self) -> None:
        """The oldest clips go while there are too many, or they are too old."""
        try:
            clips = self._clips_by_age()
            total, most = sum(size for _, size, _ in clips), self._config.max_megabytes * 1e6
            for age_seconds, size, path in clips:
                if total > most or age_seconds > self._config.max_days * 86400:
                    total -= size
                    path.unlink(missing_ok=True)
                    path.with_suffix(".json").unlink(missing_ok=True)
        except OSError as error:
            log.warning("clips: %s: old clips cannot be removed (%s)", self._config.folder, error.strerror)

    def _clips_by_age(self) -> list[tuple[float, int, Path]]:
        """Age in seconds, size in bytes, path: first what the future has left, when the clock was set back."""
        now, clips = time.time(), []
        for path in self._ours(".wav"):
            with suppress(FileNotFoundError):  # somebody has removed it just now
                status = path.stat()
                clips.append((now - status.st_mtime, status.st_size, path))
        return sorted(clips, key=lambda clip: (clip[0] >= 0, -clip[0]))


def _file_name(text: str) -> str:
    """What of a stream's or a label's name a file may be called."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in text)[:40]


def _wav(samples: FloatArray, rate_hz: int) -> bytes:
    """16-bit PCM. libsndfile into memory would need a callback, which `MemoryDenyWriteExecute` forbids."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.clip(np.round(samples * 32768), -32768, 32767).astype("<i2").tobytes())
    return buffer.getvalue()


def _refuse_unwritable(folder: Path) -> None:
    probe = folder / ".kwsd-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"clips: {folder}: {error.strerror}; make this folder, and let kwsd write to it") from None
