"""An utterance: the audio of a Wyoming client, and the answers to it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from wyoming.audio import AudioChunk
from wyoming.event import Eventable
from wyoming.wake import Detection, NotDetected

from kwsd.audio import Chunk, PcmDecoder, PcmFormat
from kwsd.protocol.events import DetectionEvent, SourceDown, parse_event
from kwsd.protocol.subscription import Subscription
from kwsd.service.control import Control
from kwsd.service.inbox import TAKE_SECONDS
from kwsd.sources.base import End, Up

ENCODINGS = {2: "s16le", 4: "s32le"}
"""PCM encodings by the bytes of a sample."""

_PAUSE_SECONDS = 0.02


@dataclass(frozen=True)
class Start:
    """When the audio starts, in milliseconds on the client's clock."""

    timestamp: int | None


class Utterance:
    """The audio from an `audio-start` to its `audio-stop`: a stream, whose detections go to the client.

    Args:
        name: of the stream.
        start_ms: when it starts, on the client's clock.
        words: those that the client wants; None for all.
        write: sends an event to the client.
        end: called with the name once everything is decided.
    """

    def __init__(
        self,
        control: Control,
        name: str,
        pcm: PcmFormat,
        start_ms: int,
        words: set[str] | None,
        write: Callable[[Eventable], None],
        end: Callable[[str], None],
    ) -> None:
        self._control, self._name, self._pcm = control, name, pcm
        self._start_ms, self._words, self._write, self._end = start_ms, words, write, end
        self._decoder = PcmDecoder(pcm)
        self._position = self._n_detected = 0
        self._subscriber = control.bus.subscribe(self._hear)
        control.bus.resume(self._subscriber, Subscription(streams=frozenset([name])))
        control.inbox.put(name, Up(pcm.rate_hz, 0.0), waits=False)

    async def take(self, chunk: AudioChunk) -> None:
        """Put a chunk into the inbox. While the inbox is full, the client waits.

        Raises:
            ValueError: it has another format.
        """
        ours = self._pcm.rate_hz, self._pcm.channels, self._pcm.encoding
        if (chunk.rate, chunk.channels, ENCODINGS.get(chunk.width)) != ours:
            raise ValueError("audio-chunk: another format than in audio-start")
        inbox, piece = self._control.inbox, max(1, round(TAKE_SECONDS * self._pcm.rate_hz))
        self._decoder.push(chunk.audio)
        while self._decoder.n_samples:
            while inbox.is_full(self._name):
                await asyncio.sleep(_PAUSE_SECONDS)
            samples = self._decoder.take(piece)
            inbox.put(self._name, Chunk(samples, self._position), waits=False)
            self._position += len(samples)

    def stop(self) -> None:
        """The audio ends; its last detections may follow."""
        self._control.inbox.put(self._name, End(), waits=False)

    def _hear(self, lines: bytes) -> None:
        """Take events of the bus."""
        for event in map(parse_event, lines.splitlines()):
            if isinstance(event, DetectionEvent) and (self._words is None or event.label in self._words):
                self._n_detected += 1
                milliseconds = self._start_ms + round(1000 * event.end_seconds)
                self._write(Detection(name=event.label, timestamp=milliseconds))
            elif isinstance(event, SourceDown):  # everything is decided
                if not self._n_detected:
                    self._write(NotDetected())
                self._control.bus.unsubscribe(self._subscriber)
                self._end(self._name)
