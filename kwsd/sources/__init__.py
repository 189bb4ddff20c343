"""Where audio comes from. One file for each way in; each opens to a rate and its chunks.

The law of this folder: a source delivers `Chunk`s whose positions count every sample, also
those that were lost; it raises `SourceError` or `AudioError` and never decides what to do
about it. Closing the iterator of chunks frees the device or file.
"""

import os
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple, Protocol

from kwsd.audio import Chunk
from kwsd.config import StreamConfig
from kwsd.errors import SourceError

CHUNK_SECONDS = 0.1
"""What a source delivers at a time: one stride, so that no window waits for its samples."""


class Opened(NamedTuple):
    """A source that is delivering: its native rate, and its chunks."""

    rate_hz: int
    chunks: Generator[Chunk, None, None]


class Source(Protocol):
    """Something to listen to.

    Attributes:
        name: for people.
        is_live: time does not wait for it: when kwsd cannot follow, audio must be dropped,
            and when it breaks, opening it again may help.
    """

    name: str
    is_live: bool

    def open(self) -> Opened:
        """Start delivering.

        Raises:
            SourceError, AudioError: it cannot be opened.
        """
        ...


def is_shared(config: StreamConfig) -> bool:
    """Whether streams that name the same source have to share it: a device is opened once."""
    return config.source.partition(":")[0] == "microphone"


def make_source(config: StreamConfig, *others: StreamConfig) -> Source:
    """The source that a stream's configuration names; "network" is none, others come to it.

    Args:
        others: of more streams that share it.
    """
    from kwsd.sources.microphone import Microphone
    from kwsd.sources.pcm import PcmInput
    from kwsd.sources.wav import WavFile

    kind, _, device = config.source.partition(":")
    if kind == "microphone":
        return Microphone(device or None, config.channel, *(other.channel for other in others))
    if config.source == "-":
        return PcmInput(config.pcm, config.channel)
    path = Path(os.path.expanduser(config.source))  # noqa: PTH111  (as in typed_yaml)
    return WavFile(path, paced=config.pace == "realtime", channel=config.channel)


def refuse_missing_channel(name: str, channel: int | None, n_channels: int) -> None:
    """Raises:
    SourceError: a source has fewer channels than that.
    """
    if channel is not None and channel > n_channels:
        raise SourceError(f"{name}: has no channel {channel}, only {n_channels}")
