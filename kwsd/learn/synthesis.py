"""Speech synthesisers: Kokoro, piper or espeak-ng speaks a text in many voices.

Kokoro and piper sound like people. Each needs its Python package, and a folder with its voices.
espeak-ng needs neither, and sounds like a machine.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from itertools import combinations, product
from pathlib import Path
from typing import Any, Protocol
from zipfile import BadZipFile

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.runtime import CPU, open_session
from kwsd.errors import LearnError
from kwsd.learn.takes import Take, cut_take, resampled
from kwsd.sources.recording import read_recording

ESPEAK_NG = "espeak-ng"
N_TAKES = 30
_SPEEDS = (0.85, 1.15)
_ESPEAK_ACCENTS = ("en-us", "en-gb", "en-gb-scotland")
_ESPEAK_SPEAKERS = ("", "+m3", "+m7", "+f2", "+f4")
_ESPEAK_PITCHES = (37, 58)
_ESPEAK_WORDS_PER_MINUTE = 165
_ESPEAK_SECONDS = 20.0


class Synthesiser(Protocol):
    """A speech synthesiser.

    Attributes:
        name: for messages.
        voices: their names. No two sound alike.
    """

    name: str
    voices: list[str]

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text, at a speed relative to the voice's own. Shape: -> (n_samples,) at 16 kHz.

        Raises:
            LearnError: it cannot speak this text.
        """
        ...


def synthesise(
    word: str, synthesiser: Synthesiser, on_progress: Callable[[int], object] = lambda n: None
) -> list[Take]:
    """Let a synthesiser speak a word thirty times: in thirty voices, if it has so many.

    Raises:
        LearnError: it cannot speak the word.
    """
    random = np.random.default_rng(0)
    is_short_of = len(synthesiser.voices) < N_TAKES
    takes = []
    for voice in random.choice(synthesiser.voices, N_TAKES, replace=is_short_of):
        samples = synthesiser.say(word, str(voice), random.uniform(*_SPEEDS))
        take = cut_take(Path(f"{synthesiser.name} {voice}"), samples)
        takes.append(replace(take, synthesiser=synthesiser.name))
        on_progress(1)
    return takes


def find_synthesiser(folder: Path | None = None) -> Synthesiser:
    """Find the synthesiser whose voices are in a folder.

    Args:
        folder: None for `$XDG_DATA_HOME/kwsd/voices`, and for espeak-ng if that holds no voices.

    Raises:
        LearnError: the folder holds no voices, or the synthesiser is not installed.
    """
    voices = folder or _default_folder()
    if kokoro := sorted(voices.glob("kokoro*.onnx")):
        return Kokoro(kokoro[0])
    if piper := sorted(voices.glob("*.onnx.json")):
        return Piper(piper)
    if folder:
        raise LearnError(f"{folder}: no voices of kokoro-onnx (kokoro*.onnx and voices*.bin) or piper (*.onnx.json)")
    return Espeak()


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()) / "kwsd" / "voices"


class Kokoro:
    """Kokoro-82M by the package kokoro-onnx: its own voices, and the means of two of them.

    Args:
        model: its ONNX file, with `voices*.bin` beside it.

    Raises:
        LearnError: the package or the voices are missing, or the model cannot be loaded.
    """

    name = "kokoro-onnx"

    def __init__(self, model: Path) -> None:
        package = _imported("kokoro_onnx", self.name, model)
        styles = sorted(model.parent.glob("voices*.bin"))
        if not styles:
            raise LearnError(f"{model}: needs voices*.bin beside it")
        session = open_session(model, model, CPU)
        try:
            self._kokoro = package.Kokoro.from_session(session, str(styles[0]))
            own = sorted(self._kokoro.voices.keys())
        except (OSError, ValueError, AttributeError, BadZipFile) as error:
            raise LearnError(f"{styles[0]}: no voices of kokoro-onnx ({error})") from None
        self.voices = [*own, *(f"{one}+{other}" for one, other in combinations(own, 2))]

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text; see `Synthesiser`."""
        style = np.mean([self._kokoro.get_voice_style(one) for one in voice.split("+")], axis=0)
        try:
            samples, rate_hz = self._kokoro.create(text, style, speed)
        except Exception as error:  # of the package, or of ONNX Runtime
            raise _unspeakable(self.name, text, str(error)) from None
        return resampled(samples, rate_hz)


class Piper:
    """piper by the package piper-tts: every speaker of every voice.

    Args:
        configurations: the `*.onnx.json` files of its voices.

    Raises:
        LearnError: the package is missing, or a voice cannot be loaded.
    """

    name = "piper"

    def __init__(self, configurations: list[Path]) -> None:
        self._package = _imported("piper", "piper-tts", configurations[0])
        self._loaded: dict[str, tuple[Any, int]] = {}
        for path in configurations:
            try:
                voice = self._package.PiperVoice.load(path.with_suffix(""))
            except Exception as error:  # of ONNX Runtime, or of damaged JSON
                reason = " ".join(str(error).split())[:200]
                raise LearnError(f"{path}: piper cannot load this voice ({reason})") from None
            for speaker in range(voice.config.num_speakers):
                self._loaded[f"{path.name.removesuffix('.onnx.json')}_{speaker}"] = voice, speaker
        self.voices = list(self._loaded)

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text; see `Synthesiser`."""
        loaded, speaker = self._loaded[voice]
        options = self._package.SynthesisConfig(speaker_id=speaker, length_scale=1 / speed)
        try:
            chunks = list(loaded.synthesize(text, options))
        except Exception as error:  # of the package, or of ONNX Runtime
            raise _unspeakable(self.name, text, str(error)) from None
        if not chunks:
            raise _unspeakable(self.name, text, "it has no sounds")
        return resampled(np.concatenate([one.audio_float_array for one in chunks]), chunks[0].sample_rate)


class Espeak:
    """espeak-ng, the program.

    Raises:
        LearnError: it is not installed.
    """

    name = ESPEAK_NG

    def __init__(self) -> None:
        program = shutil.which(self.name)
        if program is None:
            raise LearnError("no speech synthesiser: sudo apt-get install espeak-ng")
        self._program = program
        kinds = product(_ESPEAK_ACCENTS, _ESPEAK_SPEAKERS, _ESPEAK_PITCHES)
        self._options = {f"{accent}{speaker}_{pitch}": (accent + speaker, pitch) for accent, speaker, pitch in kinds}
        self.voices = list(self._options)

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text; see `Synthesiser`."""
        name, pitch = self._options[voice]
        command = [self._program, "-v", name, "-p", str(pitch), "-s", str(round(_ESPEAK_WORDS_PER_MINUTE * speed))]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.wav"
            try:
                command += ["-w", str(path), "--", text]
                subprocess.run(command, check=True, capture_output=True, timeout=_ESPEAK_SECONDS)
            except (subprocess.SubprocessError, OSError) as error:
                raise _unspeakable(self.name, text, str(error)) from None
            return resampled(*read_recording(path))


def _imported(module: str, package: str, path: Path) -> Any:
    """Import a synthesiser's package."""
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise LearnError(f"{path}: needs the package {package}: pip install {package}") from None


def _unspeakable(name: str, text: str, reason: str) -> LearnError:
    return LearnError(f"{name} cannot say {text!r} ({' '.join(reason.split())[:200]})")
