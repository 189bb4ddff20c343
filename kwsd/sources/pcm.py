"""Raw PCM on standard input: `arecord -t raw … | kwsd run --source -`."""

import os
import select
import sys
from collections.abc import Generator

import numpy as np

from kwsd.audio import PCM_ENCODINGS, Chunk, PcmDecoder, PcmFormat
from kwsd.errors import SourceError
from kwsd.sources.base import CHUNK_SECONDS, Opened, refuse_missing_channel

_CONTAINERS = {
    b"RIFF": "a WAV file", b"RIFX": "a WAV file", b"RF64": "a WAV file", b"riff": "a W64 file", b"FORM": "an AIFF file",
    b"caff": "a CAF file", b".snd": "an AU file", b"fLaC": "a FLAC file", b"OggS": "an Ogg file", b"ID3": "an MP3 file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file", b"NIST_1A": "a SPHERE file", b"Creative Voice": "a VOC file",
    b"MATLAB": "a MAT file", b"2BIT": "an AVR file", b"PVF1": "a PVF file", b"dns.": "an AU file",
    b"0&\xb2u\x8ef": "a WMA file", b"wvpk": "a WavPack file", b"#!AMR": "an AMR file", b"\x1f\x8b\x08": "a gzip file",
    b'{"stream"': "the audio socket",
}  # fmt: skip
_HEADER_BYTES = 2048  # enough for three frames of an MP3
_IDLE_SECONDS = 1.0
_ADVICE = "pipe raw PCM into kwsd: arecord -t raw ... | kwsd run --source -"


class PcmInput:
    """Samples without a header from a pipe; ends with the pipe, which is itself a bounded queue."""

    is_live = False
    is_watched = True
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
            if not select.select([descriptor], [], [], _IDLE_SECONDS)[0]:
                yield Chunk(np.empty(0, np.float32), position)  # stands for a second without audio
                continue
            data = os.read(descriptor, n_bytes)
            if not data:
                break
            decoder.push(data)
        if position == 0:
            raise SourceError(f"standard input ended before any audio; {_ADVICE}")


def _read_first(descriptor: int, n_bytes: int) -> bytes:
    """Enough bytes to recognise a header; fewer at the end of the pipe."""
    first = b""
    while len(first) < _HEADER_BYTES and (data := os.read(descriptor, n_bytes)):
        first += data
    return first


def _refuse_header(first: bytes) -> bytes:
    kind = next((kind for magic, kind in _CONTAINERS.items() if first.startswith(magic)), "")
    if first[4:8] == b"ftyp":
        kind = "an MP4 file"
    if not kind and _has_mpeg_frames(first):
        kind = "an MP3 or AAC file"
    if kind:
        raise SourceError(
            f"standard input begins with the header of {kind}; send PCM without a header: arecord -t raw, "
            "ffmpeg -f s16le"
        )
    return first


def _has_mpeg_frames(first: bytes) -> bool:
    """Whether MPEG audio frames follow each other: their first two bytes repeat at about equal distances.

    Quiet PCM may begin in the same way: FF FF, one sample of -1 in s16le, would be Layer I, which is obsolete.
    """
    if len(first) < _HEADER_BYTES or first[0] != 0xFF or first[1] < 0xE0 or first[1] & 6 == 6:
        return False
    if first[2:4] == first[:2]:  # a constant
        return False
    length = (first[3] & 3) << 11 | first[4] << 3 | first[5] >> 5  # of an AAC frame, in its header
    if first[1] >= 0xF0 and first[length : length + 2] == first[:2] and length > 6:
        return True
    at = first.find(first[:2], 24)
    while 0 < at < len(first) // 2:
        if any(first[2 * at + pad : 2 * at + pad + 2] == first[:2] for pad in (-1, 0, 1)):
            return True
        at = first.find(first[:2], at + 1)
    return False
