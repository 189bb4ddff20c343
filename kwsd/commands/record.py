"""`kwsd record`: records a source as the daemon would hear it, for `kwsd learn` and `kwsd calibrate`."""

import math
from contextlib import closing
from pathlib import Path

import soundfile
from tqdm import tqdm

from kwsd.audio import dbfs
from kwsd.commands.calibrate import refuse_existing
from kwsd.config import StreamConfig
from kwsd.errors import ConfigError, OutputError
from kwsd.files import whole
from kwsd.plain import meter
from kwsd.sources.base import make_source


def record(source: str, path: Path, minutes: float = math.inf) -> float:
    """Record until the source ends, the time is over, or Ctrl-C; then the file appears. Shows a level meter.

    Args:
        source: as in the configuration.

    Returns:
        the seconds that were recorded.

    Raises:
        SourceError, AudioError: the source cannot be opened, or broke; nothing is written.
        ConfigError: the file exists already, or cannot be written.
        OutputError: the disk is full, or gone; what was recorded until then is kept.
    """
    if not minutes > 0:
        raise ConfigError(f"--minutes {minutes:g}: must be positive")
    if source == "network":
        raise ConfigError("--source network: other programs send that; record what they send there")
    refuse_existing(path)
    rate_hz, chunks = make_source(StreamConfig(source=source)).open()
    most, n_written, has_failed = 60 * minutes * rate_hz, 0, False
    with (
        whole(path) as part,
        soundfile.SoundFile(part, "w", rate_hz, 1, "PCM_16", format="WAV") as file,
        tqdm(bar_format="recording {n:.1f} s {postfix}", disable=None, leave=False) as bar,
        closing(chunks),
    ):
        try:
            for chunk in chunks:
                samples = chunk.samples[: round(min(most - n_written, len(chunk.samples)))]
                file.write(samples)
                n_written += len(samples)
                bar.set_postfix_str(meter(dbfs(samples)), refresh=False)
                bar.update(len(samples) / rate_hz)
                if n_written >= most:
                    break
        except KeyboardInterrupt:  # what was recorded until now is wanted, here and below
            pass
        except soundfile.LibsndfileError:
            has_failed = True
    if has_failed:
        kept = f"the first {n_written / rate_hz:.0f} s are kept"
        raise OutputError(f"{path}: cannot be written any further ({kept}); is the disk full?")
    return n_written / rate_hz
