"""Speech synthesisers: Kokoro, piper or espeak-ng speaks a text in many voices.

Kokoro and piper sound like people. Each needs its Python package, and a folder with its voices.
espeak-ng needs neither, and sounds like a machine.
"""

import os
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import combinations, cycle, product
from pathlib import Path
from typing import Any, Protocol

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
    """Let a synthesiser speak a word thirty times: in thirty voices, or in all if there are fewer.

    A voice that swallows the word is replaced by another.

    Raises:
        LearnError: most voices cannot speak the word.
    """
    random = np.random.default_rng(0)
    voices = random.permutation(synthesiser.voices)
    takes: list[Take] = []
    for n_tried, voice in enumerate(cycle(voices)):
        if len(takes) == N_TAKES:
            break
        samples = synthesiser.say(word, str(voice), random.uniform(*_SPEEDS))
        try:
            take = cut_take(Path(f"{synthesiser.name} {voice}"), samples)
            problem = take.note
        except LearnError as error:
            problem = str(error)
        if problem and n_tried - len(takes) > N_TAKES:
            advice = "choose a word of two or three syllables"
            raise LearnError(f"{synthesiser.name} does not say {word!r} as one word ({problem}); {advice}")
        if not problem:
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
    synthesiser: Synthesiser
    if kokoro := sorted(voices.glob("kokoro*.onnx")):
        synthesiser = Kokoro(kokoro[0])
    elif piper := sorted(voices.glob("*.onnx.json")):
        synthesiser = Piper(piper)
    elif folder:
        raise LearnError(f"{folder}: no voices of kokoro-onnx (kokoro*.onnx and voices*.bin) or piper (*.onnx.json)")
    else:
        synthesiser = Espeak()
    if not synthesiser.voices:
        raise LearnError(f"{voices}: the files of {synthesiser.name} hold no voice; download them again")
    return synthesiser


def _default_folder() -> Path:
    try:
        data = Path(os.environ.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser())
    except RuntimeError:  # there is no home folder
        data = Path("/nonexistent")
    return data / "kwsd" / "voices"


class Kokoro:
    """Kokoro-82M by the package kokoro-onnx, in English: its own voices, and the means of two of them.

    Args:
        model: its ONNX file, with `voices*.bin` beside it.

    Raises:
        LearnError: the package or the voices are missing or damaged.
        ModelError: ONNX Runtime cannot load the model.
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
        except Exception as error:  # of NumPy, or of the package
            raise LearnError(f"{styles[0]}: no voices of kokoro-onnx ({_reason(error)})") from None
        self.voices = [*own, *(f"{one}+{other}" for one, other in combinations(own, 2))]

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text; see `Synthesiser`."""
        _refuse_other_scripts(self.name, text)
        with _one_line(self.name, text, voice):
            style = np.mean([self._kokoro.get_voice_style(one) for one in voice.split("+")], axis=0)
            return resampled(*self._kokoro.create(text, style, speed))


class Piper:
    """piper by the package piper-tts, in the language of its voices: every speaker of every voice.

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
            voice_name = path.name.removesuffix(".onnx.json")
            try:
                voice = self._package.PiperVoice.load(path.with_suffix(""))
                speakers = range(voice.config.num_speakers)
            except Exception as error:  # of ONNX Runtime, or of damaged JSON
                raise LearnError(f"{path}: piper cannot load this voice ({_reason(error)})") from None
            self._loaded |= {f"{voice_name}_{speaker}": (voice, speaker) for speaker in speakers}
        self.voices = list(self._loaded)

    def say(self, text: str, voice: str, speed: float) -> FloatArray:
        """Speak a text; see `Synthesiser`."""
        loaded, speaker = self._loaded[voice]
        options = self._package.SynthesisConfig(speaker_id=speaker, length_scale=1 / speed)
        with _one_line(self.name, text, voice):
            chunks = list(loaded.synthesize(text, options))
            return resampled(np.concatenate([one.audio_float_array for one in chunks]), chunks[0].sample_rate)


class Espeak:
    """espeak-ng, the program, in English.

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
        _refuse_other_scripts(self.name, text)
        name, pitch = self._options[voice]
        command = [self._program, "-v", name, "-p", str(pitch), "-s", str(round(_ESPEAK_WORDS_PER_MINUTE * speed))]
        with tempfile.TemporaryDirectory() as folder, _one_line(self.name, text, voice):
            path = Path(folder) / "speech.wav"
            command += ["-w", str(path), "--", text]
            subprocess.run(command, check=True, capture_output=True, timeout=_ESPEAK_SECONDS)
            return resampled(*read_recording(path))


def _imported(module: str, package: str, path: Path) -> Any:
    """Import a synthesiser's package."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = package if error.name == module else f"{error.name}, for {package}"
        raise LearnError(f"{path}: needs the package {missing}: pip install {package}") from None
    except ImportError as error:
        raise LearnError(f"{path}: the package {package} cannot be used ({_reason(error)})") from None


def _refuse_other_scripts(name: str, text: str) -> None:
    """An English voice names the letters of other scripts, instead of reading them."""
    if foreign := next((one for one in text if one.isalpha() and "LATIN" not in unicodedata.name(one, "")), ""):
        raise LearnError(f"{name} speaks English, and cannot read {foreign!r}; take a piper voice of that language")


@contextmanager
def _one_line(name: str, text: str, voice: str) -> Iterator[None]:
    """Turn whatever a synthesiser raises into one line: each has errors of its own.

    Raises:
        LearnError: always in place of another error.
    """
    try:
        yield
    except Exception as error:
        raise LearnError(f"{name} cannot say {text!r} with the voice {voice} ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    said = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else str(error)
    return " ".join(said.split())[:200] or type(error).__name__
