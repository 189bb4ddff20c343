"""Recordings: any file that libsndfile reads becomes samples, or one line that says why not."""

import io
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from kwsd.audio import RATES_HZ, FloatArray, decode_pcm, to_mono
from kwsd.errors import AudioError

_UNKNOWN_SIZE = 0xFFFF_FFFF
_UNKNOWN_FORM_SIZE = 0x7F00_0000
_UNKNOWN_RIFF_SIZE = 0x7FFF_0000
"""A writer that cannot seek back (a pipe) leaves a size near the type's maximum."""

_BLOCK_SAMPLES = 2**20
"""Samples read at once: a damaged header may announce more than fits in memory."""

_PLAIN_BYTES = 2**16
"""Bytes read first: two seconds at 16 kHz, so most clips are complete after one read."""

_PLAIN_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def open_recording(path: Path) -> soundfile.SoundFile:
    """Open a recording whose header and length are valid; close it, or use it in `with`.

    The length that the header declares is first compared with the size on disk. A WAV that was
    written into a pipe does not know its length: it reaches to the end of the file.

    Raises:
        AudioError: missing, empty, truncated, or not readable by libsndfile.
    """
    return _open(path, _read_first(path))


def read_recording(path: Path, most_seconds: float = np.inf) -> tuple[FloatArray, int]:
    """Read a whole recording, or at most `most_seconds` from its middle.

    Returns:
        mono samples of shape (n_samples,), and the rate in Hz.

    Raises:
        AudioError: as `open_recording`, or damaged further in.
    """
    first = _read_first(path)
    plain = _plain_recording(first)
    if plain and len(plain[0]) <= most_seconds * plain[1]:
        return plain
    with _open(path, first) as file:
        wanted = file.frames
        if wanted > most_seconds * file.samplerate:
            wanted = round(most_seconds * file.samplerate)
            _skip(file, path, (file.frames - wanted) // 2)
        blocks = [read_block(file, path, min(_BLOCK_SAMPLES, wanted))]
        while len(blocks[-1]) == _BLOCK_SAMPLES:
            wanted -= _BLOCK_SAMPLES
            blocks.append(read_block(file, path, min(_BLOCK_SAMPLES, wanted)))
        samples = np.concatenate(blocks) if len(blocks) > 1 else blocks[0]
        if not len(samples):
            raise AudioError(f"{path}: damaged recording (its header announces audio, and there is none)")
        return samples, file.samplerate


def read_block(file: soundfile.SoundFile, path: Path, n_samples: int, channel: int | None = None) -> FloatArray:
    """Read up to `n_samples` mono samples; an empty array at the end. `channel` as in `to_mono`.

    Raises:
        AudioError: the data is damaged.
    """
    try:
        return to_mono(file.read(n_samples, dtype="float32", always_2d=True), channel)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged recording ({error.error_string})") from None


def _open(path: Path, first: bytes) -> soundfile.SoundFile:
    """Open a recording that is not truncated. `first` are its first bytes."""
    try:
        is_from_pipe = bool(_filled_header(first, path.stat().st_size))
        file = _PipedWav(path, first) if is_from_pipe else soundfile.SoundFile(os.fsencode(path))  # any file name works
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise AudioError(f"{path}: not a readable recording ({reason})") from None
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}") from None
    except TypeError:  # raised by soundfile for a name that ends with .raw
        raise AudioError(f"{path}: raw PCM does not say its rate; pipe it to kwsd run --source -") from None
    if file.frames == 0 or not RATES_HZ[0] <= file.samplerate <= RATES_HZ[1]:
        file.close()
        accepted = f"has a rate of {file.samplerate} Hz; kwsd accepts {RATES_HZ[0]} to {RATES_HZ[1]} Hz"
        raise AudioError(f"{path}: {accepted if file.frames else 'holds no audio'}")
    return file


def _skip(file: soundfile.SoundFile, path: Path, n_samples: int) -> None:
    try:
        file.seek(n_samples)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: damaged recording ({error.error_string})") from None


def _plain_recording(data: bytes) -> tuple[FloatArray, int] | None:
    """The samples and rate, if `data` is a whole WAV of the plainest kind; else None.

    Most clips are such files: 44 bytes of header, then 16-bit samples of one channel. libsndfile
    gives the same samples, but opening a file with it takes most of the time of labelling a clip.
    """
    if len(data) <= _PLAIN_HEADER.size:
        return None
    riff, n_riff, wave, fmt, n_fmt, kind, n_channels, rate_hz, _, n_frame, bits, tag, n_data = (
        _PLAIN_HEADER.unpack_from(data)
    )
    is_plain = (
        (riff, wave, fmt, tag) == (b"RIFF", b"WAVE", b"fmt ", b"data")
        and (n_fmt, kind, n_channels, n_frame, bits) == (16, 1, 1, 2, 16)
        and n_riff + 8 == n_data + _PLAIN_HEADER.size == len(data)
        and n_data % 2 == 0
        and RATES_HZ[0] <= rate_hz <= RATES_HZ[1]
    )
    return (decode_pcm(data[_PLAIN_HEADER.size :], "s16le"), rate_hz) if is_plain else None


def _read_first(path: Path) -> bytes:
    """The first bytes of a file that is as long as its header says."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{path}: is a folder; name the recordings in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{path}: not a file; raw PCM from a pipe goes to --source -")
        with path.open("rb", buffering=0) as file:
            data = file.read(_PLAIN_BYTES)
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}") from None
    if not data:
        raise AudioError(f"{path}: empty file")
    try:
        declared = _declared_bytes(data, status.st_size)
    except struct.error:
        raise AudioError(f"{path}: truncated inside its header") from None
    if declared is not None and status.st_size < declared:
        raise AudioError(f"{path}: truncated, {status.st_size} of {declared} bytes are there")
    return data


def _declared_bytes(data: bytes, n_on_disk: int) -> int | None:
    """How long the file is according to its header; None if the header does not say it.

    libsndfile shortens a truncated file silently. Sources: the formats' specifications, and `ds64` of EBU Tech 3306.

    Raises:
        struct.error: the file ends inside its header.
    """
    kind = data[:4]
    if kind == b"RIFF":
        n_bytes = _number("<I", data, 4) + 8
        return n_bytes if n_bytes < _UNKNOWN_RIFF_SIZE else _declared_data(data)
    if kind in (b"FORM", b"RIFX"):
        n_bytes = _number(">I", data, 4)
        is_whole = n_bytes == n_on_disk  # some writers count the first 8 bytes, too
        return None if n_bytes >= _UNKNOWN_FORM_SIZE or is_whole else n_bytes + 8
    if kind in (b"RF64", b"riff"):  # riff: W64, a GUID, then the size of everything
        n_bytes = _number("<Q", data, 20) + 8 if kind == b"RF64" else _number("<Q", data, 16)
        return n_bytes if n_bytes < 2**63 else None
    if kind == b".snd":
        size = _number(">I", data, 8)
        return None if size == _UNKNOWN_SIZE else _number(">I", data, 4) + size
    return _declared_caf(data) if kind == b"caff" else None


def _declared_data(data: bytes) -> int | None:
    """Where the data chunk of a WAV ends according to its own size; None if that is not known either."""
    at, size = _data_chunk(data)
    return at + 8 + size if at and 0 < size < _UNKNOWN_RIFF_SIZE else None


def _data_chunk(data: bytes) -> tuple[int, int]:
    """Place and size of a WAV's data chunk; two zeros if it is not near the file's beginning."""
    at = 12
    while data[:4] == b"RIFF" and at + 8 <= len(data):
        size = _number("<I", data, at + 4)
        if data[at : at + 4] == b"data":
            return at, size
        at += 8 + size + size % 2
    return 0, 0


def _declared_caf(data: bytes) -> int | None:
    """A CAF file has chunks: a type, 8 bytes of size, contents. A size of -1 means "to the end"."""
    at = 8
    while at + 12 <= len(data):
        size = _number(">q", data, at + 4)
        if data[at : at + 4] == b"data":
            return at + 12 + size if size >= 0 else None
        at += 12 + max(0, size)
    return None


def _number(format: str, data: bytes, at: int) -> int:  # noqa: A002  (as struct names it)
    [number] = struct.unpack_from(format, data, at)
    return int(number)


class _SizedWav(io.FileIO):
    """A file's bytes, with the sizes in its WAV header filled in from its length on disk."""

    def __init__(self, path: Path, first: bytes) -> None:
        super().__init__(path)
        self._header = _filled_header(first, path.stat().st_size)

    def readinto(self, buffer: Any) -> int:
        at = self.tell()
        n_bytes = super().readinto(buffer) or 0
        own = self._header[at : at + n_bytes]
        memoryview(buffer).cast("B")[: len(own)] = own
        return n_bytes


class _PipedWav(soundfile.SoundFile):
    """A WAV that was written into a pipe."""

    def __init__(self, path: Path, first: bytes) -> None:
        self._sized = _SizedWav(path, first)
        super().__init__(self._sized)

    def close(self) -> None:
        super().close()
        self._sized.close()


def _size(n_bytes: int) -> bytes:
    """The size of a chunk; of one beyond 4 GiB, the largest size that a WAV can hold."""
    return min(n_bytes, _UNKNOWN_SIZE - 1).to_bytes(4, "little")


def _filled_header(first: bytes, n_bytes: int) -> bytes:
    """The header of a WAV with its sizes; empty if they are there already, or no data chunk is near its start."""
    at, size = _data_chunk(first)
    if not at or 0 < size < _UNKNOWN_RIFF_SIZE or _number("<I", first, 4) == n_bytes - 8:
        return b""
    return first[:4] + _size(n_bytes - 8) + first[8 : at + 4] + _size(n_bytes - at - 8)
