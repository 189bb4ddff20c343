"""`kwsd spot`: keywords in a recording, faster than real time, by the daemon's own detector."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from kwsd.config import Config
from kwsd.core.model import Model
from kwsd.protocol.events import DetectionEvent
from kwsd.service.detector import Detector
from kwsd.sources.base import End, Item, Up
from kwsd.sources.wav import WavFile


def spot(path: Path, model: Model, config: Config) -> Iterator[DetectionEvent]:
    """The detections that the daemon would make in a recording; the path is the stream's name.

    Raises:
        AudioError: it cannot be read, or only in part.
    """
    rate_hz, chunks = WavFile(path, paced=False).open()
    detector = Detector(model, config)
    items: Iterator[Item] = chain((Up(rate_hz, 0.0),), chunks, (End(),))
    for item in items:
        for event in detector.process([(str(path), item)]).events:
            if isinstance(event, DetectionEvent):
                yield event
