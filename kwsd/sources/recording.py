"""Recordings: a file of a usual format becomes samples, or one line that says why not."""

import io
import math
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from kwsd.audio import RATES_HZ, FloatArray, decode_pcm, to_mono
from kwsd.errors import AudioError
from kwsd.sources.container import extent

_FORMATS = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "SVX", "AU", "CAF", "FLAC", "OGG", "MP3", "NIST"}
"""Formats, as libsndfile names them, in which a truncated recording differs from a whole one."""

_MOST_SAMPLES = 2**62
"""Of a FLAC that does not say its length, libsndfile gives a higher number, and cannot read it."""

_BLOCK_SAMPLES = 2**20
"""Samples read at once: a damaged header may announce more than fits in memory."""

_PLAIN_BYTES = 2**16
"""Bytes read first: two seconds at 16 kHz, so most clips are complete after one read."""

_PLAIN_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


def open_recording(path: Path) -> soundfile.SoundFile:
    """Open a recording whose header and length are valid; close it, or use it in `with`.

    The length that the header declares is first compared with the size on disk. A recording that
    was written into a pipe does not know its length: it reaches to the end of the file.

    Raises:
        AudioError: missing, empty, truncated, or not readable by libsndfile.
    """
    _read_first(path)
    return _open(path)


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
    with _open(path) as file:
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


def _open(path: Path) -> soundfile.SoundFile:
    """Open a recording that is not truncated."""
    try:
        missing = _missing_sizes(path)
        file = _PipedRecording(path, missing) if missing else soundfile.SoundFile(os.fsencode(path))  # any name works
    except soundfile.LibsndfileError as error:
        reason = error.error_string.removeprefix("Error : ").rstrip(".")
        raise AudioError(f"{path}: not a readable recording ({reason})") from None
    except OSError as error:
        raise AudioError(f"{path}: {error.strerror}") from None
    except TypeError:  # raised by soundfile for a name that ends with .raw
        raise AudioError(f"{path}: raw PCM does not say its rate; pipe it to kwsd run --source -") from None
    if file.format not in _FORMATS:
        file.close()
        raise AudioError(f"{path}: in {file.format} kwsd cannot tell whether a recording is whole; convert it to WAV")
    if file.frames > _MOST_SAMPLES:
        file.close()
        raise AudioError(f"{path}: does not say its length, as if from a pipe; convert it to WAV")
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
    """The first bytes of a file."""
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
    return data


def _missing_sizes(path: Path) -> dict[int, bytes]:
    """The sizes that the header of a recording lacks, by their places."""
    n_bytes = path.stat().st_size
    try:
        with path.open("rb") as file:
            found = extent(file, n_bytes)
    except struct.error:
        raise AudioError(f"{path}: truncated inside its header") from None
    if found.end is not None and n_bytes < found.end:
        missing = f"{n_bytes} of {found.end} bytes are there" if found.end < math.inf else "its last part is missing"
        raise AudioError(f"{path}: truncated, {missing}")
    return found.missing


class _FilledFile(io.FileIO):
    """A file's bytes, with the sizes that are missing in its header."""

    def __init__(self, path: Path, missing: dict[int, bytes]) -> None:
        super().__init__(path)
        self._missing = missing

    def readinto(self, buffer: Any) -> int:
        begin = self.tell()
        n_bytes = super().readinto(buffer) or 0
        view = memoryview(buffer).cast("B")
        for at, size in self._missing.items():
            for place, byte in enumerate(size, at - begin):
                if 0 <= place < n_bytes:
                    view[place] = byte
        return n_bytes


class _PipedRecording(soundfile.SoundFile):
    """A recording that was written into a pipe."""

    def __init__(self, path: Path, missing: dict[int, bytes]) -> None:
        self._filled = _FilledFile(path, missing)
        super().__init__(self._filled)

    def close(self) -> None:
        super().close()
        self._filled.close()
