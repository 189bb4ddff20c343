"""Hours of talk by a speech synthesiser, for `--speech`: a file for each minute, by one voice.

Law: a folder holds talk of one kind, which `talk.json` describes: the voices, the words and the seed.
A file depends only on these and its number, so the same command continues an interrupted run.
"""

import io
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from kwsd.audio import FloatArray
from kwsd.errors import TrainingError
from kwsd.files import whole
from kwsd.learn import augment
from kwsd.learn.synthesis import Synthesiser
from train.files import read_json, write_json
from train.recordings.corpus import RATE_HZ, split_by_speaker
from train.recordings.talk import Talk

_FILE_SECONDS = 60.0
_PAUSE_SECONDS = (0.15, 0.8)
_SPEEDS = (0.85, 1.2)
_LEVEL_DBFS, _LEVEL_SPREAD_DB = -26.0, 3.0


def synthesise_talk(folder: Path, hours: float, synthesiser: Synthesiser, talk: Talk, seed: int) -> int:
    """Make the files that are missing, at least one, and show the progress.

    Synthetic talk is for training only, so only voices that `split_by_speaker` gives to training are used.

    Returns:
        how many files were made.

    Raises:
        TrainingError: no voice belongs to training, or the folder holds other talk.
        LearnError: the synthesiser fails.
        OSError: a file cannot be written.
    """
    names = {voice: f"{synthesiser.name}-{voice}" for voice in synthesiser.voices}
    voices = [voice for voice, name in names.items() if split_by_speaker(name) == "training"]
    if not voices:
        raise TrainingError(f"{synthesiser.name}: its voices all belong to validation or testing; install more voices")
    _claim(folder, {"synthesiser": synthesiser.name, "voices": voices, "words": talk.words, "seed": seed})
    n_made = 0
    n_files = max(1, round(hours * 3600 / _FILE_SECONDS))
    for number in tqdm(range(n_files), synthesiser.name, unit=" min", disable=None):
        random = np.random.default_rng((seed, number))
        voice = str(random.choice(voices))
        path = folder / f"{names[voice]}_nohash_{number}.wav"
        if not path.is_file():
            wav = io.BytesIO()  # a file itself would answer a full disk with an error without a reason
            soundfile.write(wav, _minute(synthesiser, voice, talk, random), RATE_HZ, "PCM_16", format="WAV")
            with whole(path) as part:
                part.write_bytes(wav.getbuffer())
            n_made += 1
    return n_made


def _claim(folder: Path, kind: dict[str, object]) -> None:
    """Note what kind of talk a folder holds, or check that it holds this kind."""
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder}: is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "talk.json"
    if not path.exists():
        write_json(path, kind)
    elif differing := [name for name in kind if read_json(path).get(name) != kind[name]]:
        raise TrainingError(f"{folder}: holds other talk (different {', '.join(differing)}); name another folder")


def _minute(synthesiser: Synthesiser, voice: str, talk: Talk, random: np.random.Generator) -> FloatArray:
    """A voice's talk. Shape: -> (n_samples,), about a minute at 16 kHz."""
    parts: list[FloatArray] = []
    while sum(map(len, parts)) < _FILE_SECONDS * RATE_HZ:
        speech = synthesiser.say(talk.utterance(random), voice, random.uniform(*_SPEEDS))
        level_db = random.normal(_LEVEL_DBFS, _LEVEL_SPREAD_DB)
        gain = np.float32(10 ** (level_db / 20) / max(augment.rms(speech), 1e-5))
        pause = np.zeros(round(random.uniform(*_PAUSE_SECONDS) * RATE_HZ), np.float32)
        parts += [augment.limit(speech * gain), pause]
    return np.concatenate(parts)
