"""A recording, heard as fast as possible by what the daemon hears with."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from kwsd.bus import Numbering
from kwsd.capture import End, Item, Up
from kwsd.config import Config
from kwsd.ear import Ear
from kwsd.events import DetectionEvent
from kwsd.model import Model
from kwsd.sources.wav import WavFile


def spot(path: Path, model: Model, config: Config, numbering: Numbering) -> Iterator[DetectionEvent]:
    """What the daemon would hear in a recording.

    Raises:
        AudioError: it cannot be read, or only in part.
    """
    rate_hz, chunks = WavFile(path, paced=False).open()
    ear = Ear(model, config)
    items: Iterator[Item] = chain((Up(rate_hz, 0.0),), chunks, (End(),))
    for item in items:
        for event in ear.hear([(config.stream, item)]):
            if isinstance(event, DetectionEvent):
                yield numbering.stamp(event)
