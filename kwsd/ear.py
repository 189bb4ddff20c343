"""The ear: what a capture delivers becomes events.

The law of this file: no thread, clock or socket, like the Spotter that it drives. The
daemon's inference thread and `kwsd spot` both run it, so both say the same.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from kwsd.audio import Chunk
from kwsd.bus import Numbering
from kwsd.capture import Down, End, Item, Up
from kwsd.config import Config
from kwsd.events import DetectionEvent, Overrun, Published, SourceDown, SourceUp
from kwsd.model import Model
from kwsd.sources.wav import WavFile
from kwsd.spotter import Detection, Spotter


class Ear:
    """The ear of one stream. It begins with an `Up`, and again after every `Down`."""

    def __init__(self, model: Model, config: Config) -> None:
        self._model, self._config = model, config
        self._next: tuple[Model, Config] | None = None
        self._spotter: Spotter | None = None
        self.heard_seconds = 0.0

    def swap(self, model: Model, config: Config) -> None:
        """Go on with another model and other thresholds from the next item. Any thread may call it."""
        self._next = (model, config)

    def hear(self, item: Item) -> list[Published]:
        """The events that one item of a capture brings about."""
        if self._next:
            (self._model, self._config), self._next = self._next, None
            if self._spotter:
                self._spotter = self._new_spotter()
        stream = self._config.stream
        if isinstance(item, Up):
            self._begin(item)
            return [SourceUp(stream=stream, rate_hz=item.rate_hz)]
        if isinstance(item, Down):
            self._spotter = None
            return [SourceDown(stream=stream, reason=item.reason, retry_seconds=item.retry_seconds)]
        if self._spotter is None:
            return []
        if isinstance(item, End):
            last_words, self._spotter = self._spotter.flush(), None
            return [detection_event(one, stream) for one in last_words]
        return [*self._lost(item), *(detection_event(one, stream) for one in self._push(item))]

    def _begin(self, up: Up) -> None:
        self._rate_hz, self._start_seconds, self._position = up.rate_hz, up.start_seconds, 0
        self._spotter = self._new_spotter()

    def _new_spotter(self) -> Spotter:
        return Spotter(
            self._model,
            self._rate_hz,
            start_seconds=self._stream_seconds(self._position),
            threshold=self._config.threshold,
            thresholds=self._config.thresholds,
        )

    def _stream_seconds(self, position: int) -> float:
        return self._start_seconds + position / self._rate_hz

    def _lost(self, chunk: Chunk) -> list[Published]:
        """Positions that jump are lost audio: the words on both sides do not belong together."""
        n_lost = chunk.position - self._position
        if n_lost <= 0 or self._spotter is None:
            return []
        self._spotter.reset(self._stream_seconds(chunk.position))
        return [Overrun(stream=self._config.stream, lost_seconds=round(n_lost / self._rate_hz, 3))]

    def _push(self, chunk: Chunk) -> list[Detection]:
        assert self._spotter is not None
        self._position = chunk.end
        self.heard_seconds += len(chunk.samples) / self._rate_hz
        return self._spotter.push(chunk.samples)


def detection_event(detection: Detection, stream: str) -> DetectionEvent:
    """A detection with the digits that mean something."""
    values = asdict(detection)
    digits = {"score": 4, "start_seconds": 3, "end_seconds": 3, "loudness_dbfs": 1}
    return DetectionEvent(
        stream=stream, **{key: round(value, digits[key]) if key in digits else value for key, value in values.items()}
    )


def spot(path: Path, model: Model, config: Config, numbering: Numbering) -> Iterator[DetectionEvent]:
    """Hear a recording as fast as possible, as the daemon would hear it.

    Raises:
        AudioError: it cannot be read, or only in part.
    """
    rate_hz, chunks = WavFile(path, paced=False).open()
    ear = Ear(model, config)
    items: Iterator[Item] = chain((Up(rate_hz, 0.0),), chunks, (End(),))
    for item in items:
        for event in ear.hear(item):
            if isinstance(event, DetectionEvent):
                yield numbering.stamp(event)
