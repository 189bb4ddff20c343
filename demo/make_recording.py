"""Make the bundled recording and its truth: python demo/make_recording.py

Needs espeak-ng and flite (`apt-get install espeak-ng flite`); kwsd itself does not. Several
synthetic voices say all ten keywords, and other words between them, over changing background
noise. `recording.json` has for each word its start and end, its voice, and whether it is a
keyword.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

FOLDER = Path(__file__).resolve().parent
RATE_HZ = 16000
SLOT_SECONDS = 1.6
LEAD_SECONDS = 1.5
SEED = 7

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
RMS, SLT, AWB, KAL = (("flite", "-voice", name) for name in ("rms", "slt", "awb", "kal16"))
US, GB, FEMALE = (("espeak-ng", "-v", name, "-s", "150") for name in ("en-us", "en-gb", "en-us+f2"))
VOICES = {
    "yes": RMS, "no": SLT, "up": FEMALE, "down": RMS, "left": SLT,
    "right": KAL, "on": SLT, "off": FEMALE, "stop": AWB, "go": RMS,
    "seven": US, "house": GB, "marvin": RMS, "happy": SLT, "zero": AWB, "bed": US, "three": KAL, "sheila": FEMALE,
}  # fmt: skip
"""Each keyword has a voice that says it clearly: a model trained on people recognises no synthetic voice throughout."""

NOISES = ((2.0, -50), (1.0, -46), (0.0, -52), (1.5, -42), (0.5, -56))
"""Exponent of 1/f, and level in dBFS, of each part of the background."""


def say(voice: tuple[str, ...], word: str) -> np.ndarray:
    """Return one word, without the silence around it, at -20 dBFS. Shape: (n_samples,)."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        slowly = ("--setf", "duration_stretch=1.2")
        text = (*slowly, "-t", word, "-o", file.name) if voice[0] == "flite" else ("-w", file.name, word)
        subprocess.run([*voice, *text], check=True, capture_output=True)
        samples, rate_hz = soundfile.read(file.name, dtype="float32")
    samples = soxr.resample(samples, rate_hz, RATE_HZ)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    word_samples = samples[loud[0] : loud[-1] + 1]
    return word_samples * (0.1 / np.sqrt(np.mean(word_samples**2)))


def background(n_samples: int, random: np.random.Generator) -> np.ndarray:
    """Return noise of several colours in turn, with a fade between them. Shape: (n_samples,)."""
    n_part = n_samples // len(NOISES) + 1
    fade = np.clip(np.arange(n_part) / (0.2 * RATE_HZ), 0, 1)
    parts = []
    for exponent, level_db in NOISES:
        spectrum = np.fft.rfft(random.standard_normal(n_part))
        spectrum[1:] /= np.arange(1, len(spectrum)) ** (exponent / 2)
        spectrum[: int(50 * n_part / RATE_HZ)] = 0  # no microphone picks up sound below 50 Hz
        noise = np.fft.irfft(spectrum, n_part)
        parts.append(noise / np.sqrt(np.mean(noise**2)) * 10 ** (level_db / 20) * fade * fade[::-1])
    faint = random.standard_normal(n_samples) * 10 ** (-66 / 20)
    return np.concatenate(parts)[:n_samples] + faint


def main() -> None:
    """Write recording.wav and recording.json."""
    random = np.random.default_rng(SEED)
    words = random.permutation(list(VOICES))
    n_samples = round((LEAD_SECONDS + SLOT_SECONDS * len(words)) * RATE_HZ)
    samples, truth = background(n_samples, random), []
    for index, word in enumerate(words.tolist()):
        voice = VOICES[word]
        spoken = say(voice, word) * 10 ** (random.uniform(-6, 3) / 20)
        start = round((LEAD_SECONDS + SLOT_SECONDS * index + random.uniform(0, 0.4)) * RATE_HZ)
        samples[start : start + len(spoken)] += spoken
        span = {"start_seconds": start / RATE_HZ, "end_seconds": (start + len(spoken)) / RATE_HZ}
        truth.append({"word": word, "is_keyword": word in KEYWORDS, **span, "voice": " ".join(voice)})
    soundfile.write(FOLDER / "recording.wav", np.clip(samples, -1, 1), RATE_HZ, subtype="PCM_16")
    (FOLDER / "recording.json").write_text(json.dumps(truth, indent=1) + "\n")
    print(f"{n_samples / RATE_HZ:.1f} s, {len(truth)} words")


if __name__ == "__main__":
    main()
