"""Raw PCM on standard input: `arecord -t raw … | kwsd run --source -`."""

import os
import sys
from collections.abc import Generator

from kwsd.audio import PCM_ENCODINGS, Chunk, decode_pcm
from kwsd.config import PcmConfig
from kwsd.errors import SourceError
from kwsd.sources import CHUNK_SECONDS, Opened, refuse_missing_channel

_WHAT_TO_DO = "pipe raw PCM into kwsd: arecord -t raw ... | kwsd run --source -"


class PcmInput:
    """Headerless samples from a pipe; ends with it. The pipe itself is the bounded queue."""

    is_live = False
    name = "standard input"

    def __init__(self, pcm: PcmConfig, channel: int | None = None) -> None:
        self._pcm, self._channel = pcm, channel

    def open(self) -> Opened:
        refuse_missing_channel(self.name, self._channel, self._pcm.channels)
        if sys.stdin is None or sys.stdin.isatty():
            state = "closed" if sys.stdin is None else "a terminal"
            raise SourceError(f"standard input is {state}; {_WHAT_TO_DO}")
        return Opened(self._pcm.rate_hz, self._chunks(sys.stdin.fileno()))

    def _chunks(self, descriptor: int) -> Generator[Chunk, None, None]:
        pcm = self._pcm
        frame_bytes = PCM_ENCODINGS[pcm.encoding].itemsize * pcm.channels
        wanted = round(CHUNK_SECONDS * pcm.rate_hz) * frame_bytes
        position, pending = 0, b""
        while data := os.read(descriptor, wanted):
            pending += data
            if position == 0 and pending[:4] == b"RIFF":
                raise SourceError("standard input begins with a WAV header; send headerless PCM: arecord -t raw")
            whole = len(pending) // frame_bytes * frame_bytes
            if len(pending) < 4 or not whole:
                continue
            chunk = Chunk(decode_pcm(pending[:whole], pcm.encoding, pcm.channels, self._channel), position)
            position, pending = chunk.end, pending[whole:]
            yield chunk
        if position == 0:
            raise SourceError(f"standard input ended before any audio; {_WHAT_TO_DO}")
