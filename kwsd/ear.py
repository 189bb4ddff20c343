"""The ear: what captures deliver becomes events.

The law of this file: no thread, clock or socket, like the Spotters that it drives. The
daemon's inference thread and `kwsd spot` both run it, so both say the same.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field

from kwsd.audio import Chunk, FloatArray
from kwsd.batcher import Batcher
from kwsd.capture import Down, End, Item, Up
from kwsd.config import Config
from kwsd.events import DetectionEvent, Event, Overrun, Published, Scores, SourceDown, SourceUp
from kwsd.memory import IntArray
from kwsd.model import Model
from kwsd.spotter import Detection, Spotter, push_all

ENDED = "ended"
"""Why a source is down of which nothing more was to come."""


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


@dataclass(slots=True)
class StreamFigures:
    """What became of a stream in this run, down times included.

    Attributes:
        heard_seconds, lost_seconds: of audio.
        n_detections: of each label.
        is_up: whether its source delivers; down: why not.
    """

    heard_seconds: float = 0.0
    lost_seconds: float = 0.0
    n_detections: Counter[str] = field(default_factory=Counter)
    is_up: bool = False
    down: str = "not heard yet"


class Ear:
    """The ear of all streams. Each begins with an `Up`, and again after every `Down`.

    Attributes:
        figures: of each stream that is configured, or up.
        wants_scores: whether the events that come include running scores.
        on_audio: called with what is heard of a stream: its name, the rate, the stream time
            of the first sample, and the samples.
        on_end: called with the name of a stream of which nothing more comes.
    """

    on_audio: Callable[[str, int, float, FloatArray], object] | None = None
    on_end: Callable[[str], object] | None = None

    def __init__(self, model: Model, config: Config) -> None:
        self._begin(model, config)
        self._next: deque[tuple[Model, Config]] = deque(maxlen=1)
        self._streams: dict[str, _Heard] = {}
        self.figures = {name: StreamFigures() for name in config.stream_names}
        self.wants_scores = False
        self._past_seconds = 0.0

    @property
    def heard_seconds(self) -> float:
        """Of all streams together."""
        return self._past_seconds + sum(figures.heard_seconds for figures in list(self.figures.values()))

    def swap(self, model: Model, config: Config) -> None:
        """Go on with another model and other thresholds from the next items. Any thread may call it.

        With the model that it has, every stream goes on; another one has to fill its windows first.
        """
        self._next.append((model, config))

    def hear(self, items: Iterable[tuple[str, Item]]) -> list[Event]:
        """The events that items of captures bring about, each with its stream's name.

        Chunks of different streams are heard side by side. What a stream is told does not
        depend on that.
        """
        if self._next:
            self._swap(*self._next.pop())
        events: list[Event] = []
        waiting: dict[Spotter, tuple[str, FloatArray]] = {}
        for name, item in items:
            stream = self._streams.get(name)
            if stream and stream.spotter in waiting:
                events += self._push(waiting)
            if not isinstance(item, Chunk):
                events += self._news(name, item)
            elif stream:
                events += self._lost(stream, item)
                if self.on_audio:
                    self.on_audio(name, stream.rate_hz, stream.seconds, item.samples)
                waiting[stream.spotter] = (name, item.samples)
                stream.position = item.end
                self.figures[name].heard_seconds += len(item.samples) / stream.rate_hz
        return events + self._push(waiting)

    def _begin(self, model: Model, config: Config) -> None:
        self._model, self._config = model, config
        self._batcher = Batcher(model)

    def _swap(self, model: Model, config: Config) -> None:
        if model is self._model:
            self._config = config
            for heard in self._streams.values():
                own = config.of_stream(heard.name)
                heard.spotter.change(own.threshold, own.thresholds)
            return
        self._begin(model, config)
        for heard in self._streams.values():
            heard.spotter = self._new_spotter(heard.name, heard.rate_hz, heard.seconds)

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

    def _push(self, waiting: dict[Spotter, tuple[str, FloatArray]]) -> list[Event]:
        """Hear what waits of each stream, and nothing waits any more."""
        names = {spotter: name for spotter, (name, _) in waiting.items()}
        scores: list[Event] = []
        if self.wants_scores:
            by_row = {spotter.row: (spotter, name) for spotter, name in names.items()}
            self._batcher.on_scores = lambda *of_windows: scores.extend(self._scores(by_row, *of_windows))
        detections = push_all(self._batcher, {spotter: samples for spotter, (_, samples) in waiting.items()})
        self._batcher.on_scores = None
        waiting.clear()
        return scores + [self._detection(one, names[spotter]) for spotter, found in detections.items() for one in found]

    def _detection(self, detection: Detection, stream: str) -> DetectionEvent:
        self.figures[stream].n_detections[detection.label] += 1
        return detection_event(detection, stream)

    def _scores(
        self, by_row: dict[int, tuple[Spotter, str]], rows: IntArray, scores: FloatArray, ends: IntArray
    ) -> Iterable[Scores]:
        labels = self._model.card.labels
        keywords = [n for n, label in enumerate(labels) if label in self._model.card.keywords]
        for row, of_row, end in zip(rows.tolist(), scores, ends.tolist(), strict=True):
            spotter, name = by_row[row]
            of_labels = {labels[n]: round(float(of_row[n]), 4) for n in keywords}
            yield Scores(stream=name, end_seconds=round(spotter.seconds_at(end), 3), scores=of_labels)

    def _news(self, name: str, item: Up | Down | End) -> list[Published]:
        """A source came or went."""
        if isinstance(item, Up):
            spotter = self._new_spotter(name, item.rate_hz, item.start_seconds)
            self._streams[name] = _Heard(name, item.rate_hz, item.start_seconds, spotter)
            self.figures.setdefault(name, StreamFigures()).is_up = True
            return [SourceUp(stream=name, rate_hz=item.rate_hz)]
        if self.on_end:
            self.on_end(name)
        stream = self._streams.pop(name, None)
        last_words = stream.spotter.flush() if stream and isinstance(item, End) else []
        if stream:
            stream.spotter.close()
        events: list[Published] = [self._detection(one, name) for one in last_words]
        reason, retry_seconds = (
            (item.reason, item.retry_seconds) if isinstance(item, Down) else (str(item.error or ENDED), None)
        )
        figures = self.figures.setdefault(name, StreamFigures())
        figures.is_up, figures.down = False, reason
        if name not in self._config.stream_names and retry_seconds is None:  # names of the network may be many
            self._past_seconds += self.figures.pop(name).heard_seconds
        return [*events, SourceDown(stream=name, reason=reason, retry_seconds=retry_seconds)]

    def _lost(self, stream: _Heard, chunk: Chunk) -> list[Published]:
        """Positions that jump are lost audio: the words on both sides do not belong together."""
        n_lost = chunk.position - stream.position
        if n_lost <= 0:
            return []
        stream.position = chunk.position
        stream.spotter.reset(stream.seconds)
        self.figures[stream.name].lost_seconds += n_lost / stream.rate_hz
        return [Overrun(stream=stream.name, lost_seconds=round(n_lost / stream.rate_hz, 3))]


def detection_event(detection: Detection, stream: str) -> DetectionEvent:
    """A detection with the digits that mean something."""
    values = asdict(detection)
    digits = {"score": 4, "start_seconds": 3, "end_seconds": 3, "loudness_dbfs": 1}
    return DetectionEvent(
        stream=stream, **{key: round(value, digits[key]) if key in digits else value for key, value in values.items()}
    )
