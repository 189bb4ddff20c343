"""Takes spoken by an installed synthesiser: espeak-ng, in many voices, speeds and pitches."""

import shutil
import subprocess
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path

from kwsd.errors import LearnError
from kwsd.learn.takes import Take, read_take

_ACCENTS = ("en-us", "en-gb", "en-gb-scotland")
_SPEAKERS = ("", "+m3", "+m7", "+f2", "+f4")
_SPEEDS = (140, 175)
_SECONDS = 20.0


def synthesise(word: str) -> list[Take]:
    """Let espeak-ng speak a word in thirty voices.

    Raises:
        LearnError: it is not installed, or cannot speak the word.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise LearnError("--synthesise: needs espeak-ng: sudo apt-get install espeak-ng")
    takes = []
    with tempfile.TemporaryDirectory() as folder:
        for n, (accent, speaker, speed) in enumerate(product(_ACCENTS, _SPEAKERS, _SPEEDS)):
            path = Path(folder) / f"espeak-ng {accent}{speaker} {n}.wav"
            command = [program, "-v", accent + speaker, "-s", str(speed), "-p", str(30 + 7 * (n % 6)), "-w", str(path)]
            try:
                subprocess.run([*command, "--", word], check=True, capture_output=True, timeout=_SECONDS)
            except (subprocess.SubprocessError, OSError) as error:
                raise LearnError(f"--synthesise: espeak-ng cannot say {word!r} ({error})") from None
            takes.append(replace(read_take(path), is_synthetic=True))
    return takes
