"""Raw PCM on standard input: `arecord -t raw … | kwsd run --source -`."""

import os
import sys
from collections.abc import Generator

from kwsd.audio import PCM_ENCODINGS, Chunk, PcmDecoder, PcmFormat
from kwsd.errors import SourceError
from kwsd.sources.base import CHUNK_SECONDS, Opened, refuse_missing_channel

_CONTAINERS = {
    b"RIFF": "a WAV file", b"RIFX": "a WAV file", b"RF64": "a WAV file", b"riff": "a W64 file", b"FORM": "an AIFF file",
    b"caff": "a CAF file", b".snd": "an AU file", b"fLaC": "a FLAC file", b"OggS": "an Ogg file", b"ID3": "an MP3 file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
}  # fmt: skip
_ADVICE = "pipe raw PCM into kwsd: arecord -t raw ... | kwsd run --source -"


class PcmInput:
    """Samples without a header from a pipe; ends with the pipe, which is itself a bounded queue."""

    is_live = False
    name = "standard input"

    def __init__(self, pcm: PcmFormat, channel: int | None = None) -> None:
        self._pcm, self._channel = pcm, channel

    def open(self) -> Opened:
        refuse_missing_channel(self.name, self._channel, self._pcm.channels)
        if sys.stdin is None or sys.stdin.isatty():
            state = "closed" if sys.stdin is None else "a terminal"
            raise SourceError(f"standard input is {state}; {_ADVICE}")
        return Opened(self._pcm.rate_hz, self._chunks(sys.stdin.fileno()))

    def _chunks(self, descriptor: int) -> Generator[Chunk, None, None]:
        pcm = self._pcm
        n_bytes = round(CHUNK_SECONDS * pcm.rate_hz) * PCM_ENCODINGS[pcm.encoding].itemsize * pcm.channels
        decoder, position = PcmDecoder(pcm, self._channel), 0
        decoder.push(_refuse_header(_read_first(descriptor, n_bytes)))
        while True:
            if decoder.n_samples:
                chunk = Chunk(decoder.take(), position)
                position = chunk.end
                yield chunk
            data = os.read(descriptor, n_bytes)
            if not data:
                break
            decoder.push(data)
        if position == 0:
            raise SourceError(f"standard input ended before any audio; {_ADVICE}")


def _read_first(descriptor: int, n_bytes: int) -> bytes:
    """Enough bytes to recognise a header; fewer at the end of the pipe."""
    first = b""
    while len(first) < 4 and (data := os.read(descriptor, n_bytes)):
        first += data
    return first


def _refuse_header(first: bytes) -> bytes:
    for magic, kind in _CONTAINERS.items():
        if first.startswith(magic):
            raise SourceError(
                f"standard input begins with the header of {kind}; send PCM without a header: arecord -t raw, "
                "ffmpeg -f s16le"
            )
    return first
