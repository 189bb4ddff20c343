"""What every source is, what it reports, and which source a configuration means."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kwsd.audio import Chunk
from kwsd.config import StreamConfig
from kwsd.errors import SourceError
from kwsd.typed import expand

CHUNK_SECONDS = 0.1
"""Length of the chunks that a source delivers: one stride, so that no window waits for its samples."""


class Opened(NamedTuple):
    """An open source: its native rate, and its chunks.

    Once the first chunk was taken, closing `chunks` frees the device or file.
    """

    rate_hz: int
    chunks: Generator[Chunk, None, None]


class Source(Protocol):
    """Something to listen to.

    Attributes:
        name: for messages.
        is_live: whether time goes on without kwsd. When kwsd cannot follow a live source, audio is
            dropped, and when it breaks, opening it again may help.
        is_watched: whether nothing but zeros for `silent_seconds` is a fault.
    """

    name: str
    is_live: bool
    is_watched: bool

    def open(self) -> Opened:
        """Start delivering.

        Raises:
            SourceError, AudioError: it cannot be opened.
        """
        ...


@dataclass(frozen=True, slots=True)
class Up:
    """A stream delivers from here on; its first sample is `start_seconds` into the stream."""

    rate_hz: int
    start_seconds: float


@dataclass(frozen=True, slots=True)
class Down:
    """A stream's source broke, and will be opened again."""

    reason: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class End:
    """A stream ended, or (with an error) broke and cannot be opened again."""

    error: Exception | None = None


Item = Up | Chunk | Down | End
"""What happens in a stream, in order: Up, chunks, then Down or End."""


def is_shared(config: StreamConfig) -> bool:
    """Whether streams that name the same source must share it: a device can be opened only once."""
    return config.source.partition(":")[0] == "microphone"


def make_source(*configs: StreamConfig) -> Source:
    """The source of a stream, or of several streams that share one.

    "network" has no source: other programs connect to the audio socket.
    """
    config = configs[0]
    kind, _, device = config.source.partition(":")
    if kind == "microphone":
        from kwsd.sources.microphone import Microphone

        return Microphone(device or None, *(stream.channel for stream in configs))
    if config.source == "-":
        from kwsd.sources.pcm import PcmInput

        return PcmInput(config.pcm, config.channel)
    from kwsd.sources.wav import WavFile

    return WavFile(expand(config.source), paced=config.pace == "realtime", channel=config.channel)


def refuse_missing_channel(name: str, channel: int | None, n_channels: int) -> None:
    """Check that a source has a channel.

    Raises:
        SourceError: it has fewer channels.
    """
    if channel is not None and channel > n_channels:
        raise SourceError(f"{name}: has no channel {channel}, only {n_channels}")
