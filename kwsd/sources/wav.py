"""A recording, played at its own pace or as fast as possible."""

import time
from collections.abc import Generator
from pathlib import Path

import soundfile

from kwsd.audio import Chunk
from kwsd.errors import AudioError, SourceError
from kwsd.sources.base import CHUNK_SECONDS, Opened, refuse_missing_channel
from kwsd.sources.recording import open_recording, read_block


class WavFile:
    """A recording as a source; ends with the file.

    Args:
        path: a recording, as `open_recording` reads it.
        paced: deliver each chunk at the time when its last sample would have been spoken.
        channel: counted from 1; None for the mean of all.
    """

    is_live = is_watched = False

    def __init__(self, path: Path, paced: bool, channel: int | None = None) -> None:
        self.name = str(path)
        self._path, self._paced, self._channel = path, paced, channel

    def open(self) -> Opened:
        file = open_recording(self._path)
        try:
            refuse_missing_channel(self.name, self._channel, file.channels)
        except SourceError:
            file.close()
            raise
        return Opened(file.samplerate, self._chunks(file))

    def _chunks(self, file: soundfile.SoundFile) -> Generator[Chunk, None, None]:
        started, position = time.monotonic(), 0
        n_samples = round(CHUNK_SECONDS * file.samplerate)
        with file:
            while len(samples := read_block(file, self._path, n_samples, self._channel)):
                chunk = Chunk(samples, position)
                position = chunk.end
                if self._paced:
                    time.sleep(max(0.0, started + position / file.samplerate - time.monotonic()))
                yield chunk
        if position == 0:
            raise AudioError(f"{self.name}: damaged recording (its header announces audio, and there is none)")
