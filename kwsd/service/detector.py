"""The detector: what sources deliver becomes events.

Law: no thread, clock or socket, like the Spotters that it runs. Data goes out as return values. The
daemon's inference thread and `kwsd spot` both run it, so both give the same events.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from kwsd.audio import Chunk, FloatArray, dbfs
from kwsd.config import Config
from kwsd.core.decision import thresholds_of
from kwsd.core.model import Model
from kwsd.core.near_misses import NearMisses
from kwsd.core.spotter import Detection, Spotter
from kwsd.core.stream_batch import StreamBatch, Windows
from kwsd.protocol.events import DetectionEvent, Event, NearMiss, Overrun, Published, Scores, SourceDown, SourceUp
from kwsd.sources.base import Down, End, Item, Up

ENDED = "ended"
"""The reason of `source_down` for a source that has delivered everything."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Audio of a stream that was processed; its first sample is at `seconds` of stream time."""

    stream: str
    rate_hz: int
    seconds: float
    samples: FloatArray


@dataclass(frozen=True, slots=True)
class Ended:
    """A stream ended, or its source broke."""

    stream: str


@dataclass(frozen=True, slots=True)
class Processed:
    """What a call of `Detector.process` brought about, each list in order."""

    events: list[Event] = field(default_factory=list)
    audio: list[Piece | Ended] = field(default_factory=list)
    windows: list[tuple[str, Windows]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Extras:
    """Optional results, each of which costs time.

    Attributes:
        scores: running scores of every stream.
        near_misses: whether to look for near misses.
        windows: names of the streams whose windows are returned.
    """

    scores: bool = False
    near_misses: bool = False
    windows: frozenset[str] = frozenset()


@dataclass(slots=True)
class StreamFigures:
    """Counters of a stream in this run of the daemon.

    Attributes:
        heard_seconds, lost_seconds: of audio.
        n_detections: of each label.
        is_up: whether its source delivers.
        down: why not.
    """

    heard_seconds: float = 0.0
    lost_seconds: float = 0.0
    n_detections: Counter[str] = field(default_factory=Counter)
    is_up: bool = False
    down: str = "no audio yet"


@dataclass(slots=True)
class _Stream:
    """A stream that is up: its clock, and its Spotter."""

    name: str
    rate_hz: int
    start_seconds: float
    spotter: Spotter
    near_misses: NearMisses
    position: int = 0  # of the next sample, if none is lost

    @property
    def seconds(self) -> float:
        """Stream time of `position`."""
        return self.start_seconds + self.position / self.rate_hz


@dataclass(slots=True)
class _Run:
    """The next samples of some streams, at the model's rate, and the streams that end with them."""

    samples: dict[str, FloatArray] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)


class Detector:
    """Detects keywords in all streams.

    Attributes:
        figures: counters of each stream that is configured, or up.
        muted: streams that hear silence. Another thread may replace the set.
    """

    def __init__(self, model: Model, config: Config) -> None:
        self._model, self._config = model, config
        self._batch = StreamBatch(model)
        self._next: deque[tuple[Model, Config]] = deque(maxlen=1)
        self._streams: dict[str, _Stream] = {}
        self.figures = {name: StreamFigures() for name in config.streams}
        self.muted: frozenset[str] = frozenset()
        self._past_seconds = 0.0

    @property
    def heard_seconds(self) -> float:
        """Audio processed, all streams together."""
        return self._past_seconds + sum(figures.heard_seconds for figures in list(self.figures.values()))

    def reload(self, model: Model, config: Config) -> None:
        """Use another model and configuration from the next `process` on. Any thread may call this.

        With the same model every stream goes on. A new model must first fill its windows.
        """
        self._next.append((model, config))

    def process(self, items: Iterable[tuple[str, Item]], extras: Extras = Extras()) -> Processed:
        """Process items of streams, each with the stream's name.

        Chunks of different streams share runs; the events of a stream do not depend on that.
        """
        if self._next:
            self._reload(*self._next.pop())
        output, run = Processed(), _Run()
        for name, item in items:
            if name in run.samples:
                self._finish(run, output, extras)
            stream = self._streams.get(name)
            if isinstance(item, Chunk) and stream:
                output.events.extend(self._skip_lost(stream, item))
                samples = np.zeros_like(item.samples) if name in self.muted else item.samples
                output.audio.append(Piece(name, stream.rate_hz, stream.seconds, samples))
                run.samples[name] = stream.spotter.resample(samples)
                stream.position = item.end
                self.figures[name].heard_seconds += len(item.samples) / stream.rate_hz
            elif isinstance(item, End) and stream:
                run.samples[name] = stream.spotter.ending()
                run.ends[name] = item
            elif not isinstance(item, Chunk):
                self._change_state(name, item, output)
        self._finish(run, output, extras)
        return output

    def _reload(self, model: Model, config: Config) -> None:
        self._config = config
        if model is self._model:
            for stream in self._streams.values():
                stream.spotter.set_thresholds(self._thresholds(stream.name))
                stream.near_misses.set_thresholds(thresholds_of(self._model.card, self._thresholds(stream.name)))
            return
        self._model, self._batch = model, StreamBatch(model)
        for stream in self._streams.values():
            stream.spotter = self._new_spotter(stream.name, stream.rate_hz, stream.seconds)
            stream.near_misses = self._new_near_misses(stream.name)

    def _thresholds(self, name: str) -> dict[str, float]:
        return self._config.of_stream(name).chosen_thresholds(self._model.card.keywords)

    def _new_spotter(self, name: str, rate_hz: int, start_seconds: float) -> Spotter:
        thresholds = self._thresholds(name)
        return Spotter(self._model, rate_hz, start_seconds=start_seconds, thresholds=thresholds, batch=self._batch)

    def _new_near_misses(self, name: str) -> NearMisses:
        card = self._model.card
        stride_samples = card.stride_frames * card.frontend.hop_samples
        return NearMisses(thresholds_of(card, self._thresholds(name)), stride_samples)

    def _finish(self, run: "_Run", output: Processed, extras: Extras) -> None:
        """Process the samples of several streams together, end those that end, and empty the run."""
        streams = {self._streams[name].spotter.row: self._streams[name] for name in run.samples}
        chunks = {row: run.samples[stream.name] for row, stream in streams.items()}
        levels = {row: round(dbfs(samples), 1) for row, samples in chunks.items()} if extras.scores else {}
        for windows in self._batch.process(chunks):
            if extras.scores:
                output.events.extend(self._scores(windows, streams, levels))
            for n, row in enumerate(windows.rows.tolist()) if extras.windows else ():
                if streams[row].name in extras.windows:
                    output.windows.append((streams[row].name, windows.of_one(n)))
            if extras.near_misses:
                output.events.extend(self._near_misses(windows, streams))
            for decided in windows.decided:
                stream = streams[decided.row]
                output.events.append(self._detected(stream.spotter.detection(decided), stream.name))
        for name, end in run.ends.items():
            self._change_state(name, end, output)
        run.samples.clear()
        run.ends.clear()

    def _scores(self, windows: Windows, streams: dict[int, _Stream], levels: dict[int, float]) -> Iterator[Scores]:
        labels = self._model.card.labels
        keywords = [n for n, label in enumerate(labels) if label in self._model.card.keywords]
        for row, scores, end in zip(windows.rows.tolist(), windows.scores, windows.ends.tolist(), strict=True):
            stream = streams[row]
            by_label = {labels[n]: round(float(scores[n]), 4) for n in keywords}
            end_seconds = round(stream.spotter.seconds_at(end), 3)
            yield Scores(stream=stream.name, end_seconds=end_seconds, scores=by_label, level_dbfs=levels[row])

    def _near_misses(self, windows: Windows, streams: dict[int, _Stream]) -> Iterator[NearMiss]:
        card = self._model.card
        labels, window_seconds = card.labels, card.window_seconds
        for row, scores, end in zip(windows.rows.tolist(), windows.scores, windows.ends.tolist(), strict=True):
            stream = streams[row]
            fired = [labels.index(one.label) for one in windows.decided if one.row == row]
            for near in stream.near_misses.push(scores, end, fired):
                end_seconds = stream.spotter.seconds_at(near.end)
                yield NearMiss(
                    stream=stream.name,
                    label=labels[near.label],
                    score=round(near.score, 4),
                    threshold=near.threshold,
                    start_seconds=round(end_seconds - window_seconds, 3),
                    end_seconds=round(end_seconds, 3),
                )

    def _detected(self, detection: Detection, stream: str) -> DetectionEvent:
        self.figures[stream].n_detections[detection.label] += 1
        return detection_event(detection, stream)

    def _change_state(self, name: str, item: Up | Down | End, output: Processed) -> None:
        figures = self.figures.setdefault(name, StreamFigures())
        if isinstance(item, Up):
            spotter = self._new_spotter(name, item.rate_hz, item.start_seconds)
            near_misses = self._new_near_misses(name)
            self._streams[name] = _Stream(name, item.rate_hz, item.start_seconds, spotter, near_misses)
            figures.is_up = True
            output.events.append(SourceUp(stream=name, rate_hz=item.rate_hz))
            return
        output.audio.append(Ended(name))
        if stream := self._streams.pop(name, None):
            stream.spotter.close()
        if isinstance(item, Down):
            down = SourceDown(stream=name, reason=item.reason, retry_seconds=item.retry_seconds)
        else:
            down = SourceDown(stream=name, reason=str(item.error or ENDED), retry_seconds=None)
        output.events.append(down)
        figures.is_up, figures.down = False, down.reason
        if isinstance(item, End) and name not in self._config.streams:  # the network may bring any number of names
            self._past_seconds += self.figures.pop(name).heard_seconds

    def _skip_lost(self, stream: _Stream, chunk: Chunk) -> list[Published]:
        """A jump in the positions is lost audio. The Spotter starts anew, since no word spans the hole."""
        n_lost = chunk.position - stream.position
        if n_lost <= 0:
            return []
        stream.position = chunk.position
        stream.spotter.reset(stream.seconds)
        self.figures[stream.name].lost_seconds += n_lost / stream.rate_hz
        return [Overrun(stream=stream.name, lost_seconds=round(n_lost / stream.rate_hz, 3))]


def detection_event(detection: Detection, stream: str) -> DetectionEvent:
    """A detection as an event, rounded to meaningful digits."""
    return DetectionEvent(
        stream=stream,
        label=detection.label,
        score=round(detection.score, 4),
        start_seconds=round(detection.start_seconds, 3),
        end_seconds=round(detection.end_seconds, 3),
        loudness_dbfs=round(detection.loudness_dbfs, 1),
    )
