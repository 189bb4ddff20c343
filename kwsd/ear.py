"""The ear: what captures deliver becomes events.

The law of this file: no thread, clock or socket, like the Spotters that it drives. The
daemon's inference thread and `kwsd spot` both run it, so both say the same.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from kwsd.audio import Chunk, FloatArray
from kwsd.batcher import Batcher
from kwsd.capture import Down, End, Item, Up
from kwsd.config import Config
from kwsd.events import DetectionEvent, Overrun, Published, SourceDown, SourceUp
from kwsd.model import Model
from kwsd.spotter import Detection, Spotter, push_all


@dataclass(slots=True)
class _Heard:
    """A stream that is up: its clock, and its Spotter."""

    name: str
    rate_hz: int
    start_seconds: float
    spotter: Spotter
    position: int = 0  # of the next sample, if none is lost

    @property
    def seconds(self) -> float:
        """Stream time of `position`."""
        return self.start_seconds + self.position / self.rate_hz


class Ear:
    """The ear of all streams. Each begins with an `Up`, and again after every `Down`."""

    def __init__(self, model: Model, config: Config) -> None:
        self._begin(model, config)
        self._next: tuple[Model, Config] | None = None
        self._streams: dict[str, _Heard] = {}
        self.heard_seconds = 0.0

    def swap(self, model: Model, config: Config) -> None:
        """Go on with another model and other thresholds from the next items. Any thread may call it."""
        self._next = (model, config)

    def hear(self, items: Iterable[tuple[str, Item]]) -> list[Published]:
        """The events that items of captures bring about, each with its stream's name.

        Chunks of different streams are heard side by side. What a stream is told does not
        depend on that.
        """
        if self._next:
            self._begin(*self._next)
            self._next = None
            for heard in self._streams.values():
                heard.spotter = self._new_spotter(heard.name, heard.rate_hz, heard.seconds)
        events: list[Published] = []
        waiting: dict[Spotter, tuple[str, FloatArray]] = {}
        for name, item in items:
            stream = self._streams.get(name)
            if stream and stream.spotter in waiting:
                events += self._push(waiting)
            if not isinstance(item, Chunk):
                events += self._news(name, item)
            elif stream:
                events += self._lost(stream, item)
                waiting[stream.spotter] = (name, item.samples)
                stream.position = item.end
                self.heard_seconds += len(item.samples) / stream.rate_hz
        return events + self._push(waiting)

    def _begin(self, model: Model, config: Config) -> None:
        self._model, self._config = model, config
        self._batcher = Batcher(model)

    def _new_spotter(self, name: str, rate_hz: int, start_seconds: float) -> Spotter:
        own = self._config.of_stream(name)
        return Spotter(
            self._model,
            rate_hz,
            start_seconds=start_seconds,
            threshold=own.threshold,
            thresholds=own.thresholds,
            batcher=self._batcher,
        )

    def _push(self, waiting: dict[Spotter, tuple[str, FloatArray]]) -> list[Published]:
        """Hear what waits of each stream, and nothing waits any more."""
        names = {spotter: name for spotter, (name, _) in waiting.items()}
        detections = push_all(self._batcher, {spotter: samples for spotter, (_, samples) in waiting.items()})
        waiting.clear()
        return [detection_event(one, names[spotter]) for spotter, found in detections.items() for one in found]

    def _news(self, name: str, item: Up | Down | End) -> list[Published]:
        """A source came or went."""
        if isinstance(item, Up):
            spotter = self._new_spotter(name, item.rate_hz, item.start_seconds)
            self._streams[name] = _Heard(name, item.rate_hz, item.start_seconds, spotter)
            return [SourceUp(stream=name, rate_hz=item.rate_hz)]
        stream = self._streams.pop(name, None)
        last_words = stream.spotter.flush() if stream and isinstance(item, End) else []
        if stream:
            stream.spotter.close()
        events: list[Published] = [detection_event(one, name) for one in last_words]
        if isinstance(item, Down):
            return [SourceDown(stream=name, reason=item.reason, retry_seconds=item.retry_seconds)]
        return [*events, SourceDown(stream=name, reason=str(item.error or "ended"), retry_seconds=None)]

    def _lost(self, stream: _Heard, chunk: Chunk) -> list[Published]:
        """Positions that jump are lost audio: the words on both sides do not belong together."""
        n_lost = chunk.position - stream.position
        if n_lost <= 0:
            return []
        stream.position = chunk.position
        stream.spotter.reset(stream.seconds)
        return [Overrun(stream=stream.name, lost_seconds=round(n_lost / stream.rate_hz, 3))]


def detection_event(detection: Detection, stream: str) -> DetectionEvent:
    """A detection with the digits that mean something."""
    values = asdict(detection)
    digits = {"score": 4, "start_seconds": 3, "end_seconds": 3, "loudness_dbfs": 1}
    return DetectionEvent(
        stream=stream, **{key: round(value, digits[key]) if key in digits else value for key, value in values.items()}
    )
