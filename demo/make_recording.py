"""Make the two bundled recordings: python demo/make_recording.py

Needs espeak-ng and flite (`apt-get install espeak-ng flite`); kwsd itself does not. Synthetic voices
speak over changing background noise. In `recording.wav` they say all ten keywords, and other words
between them; `recording.json` has for each word its start and end, its voice, and whether it is a
keyword. In `talk.wav` they talk for a minute without a keyword, and many words resemble one.
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

TALK = (
    "Good morning. The weather is fine today, and the children are still asleep.",
    "We bought bread, milk and a dozen eggs at the market near the river.",
    "My sister owns a small shop. She sells shoes, coats and woollen hats.",
    "Nobody goes upstairs before dinner, because the lights are broken there.",
    "He gave his note to the teacher, and lifted the goat over the wall.",
    "The town was brown and quiet at dawn. A dog barked once or twice.",
    "Have you ever seen a rainbow at night? It is gone before you can smile.",
    "Please put the kettle where it belongs. The tea is much too hot for me.",
    "Yesterday they laughed at often repeated stories about the old coffee house.",
    "A cup of soup costs three pounds. The top shelf is for the guests.",
    "Her brother drives a lorry to the coast, and then he takes the ferry home.",
    "The answer was alright, said the nurse, but someone else must try it soon.",
    "Seven upright chairs stood around the oven, and one of them was mine.",
)
"""Contains no keyword, and no word that sounds like one (know, write)."""

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
    """Write both recordings."""
    words()
    talk()


def words() -> None:
    """Write recording.wav and recording.json."""
    random = np.random.default_rng(SEED)
    spoken_words = random.permutation(list(VOICES)).tolist()
    n_samples = round((LEAD_SECONDS + SLOT_SECONDS * len(spoken_words)) * RATE_HZ)
    samples, truth = background(n_samples, random), []
    for index, word in enumerate(spoken_words):
        voice = VOICES[word]
        spoken = say(voice, word) * 10 ** (random.uniform(-6, 3) / 20)
        start = round((LEAD_SECONDS + SLOT_SECONDS * index + random.uniform(0, 0.4)) * RATE_HZ)
        samples[start : start + len(spoken)] += spoken
        span = {"start_seconds": start / RATE_HZ, "end_seconds": (start + len(spoken)) / RATE_HZ}
        truth.append({"word": word, "is_keyword": word in KEYWORDS, **span, "voice": " ".join(voice)})
    soundfile.write(FOLDER / "recording.wav", np.clip(samples, -1, 1), RATE_HZ, subtype="PCM_16")
    (FOLDER / "recording.json").write_text(json.dumps(truth, indent=1) + "\n")
    print(f"recording.wav: {n_samples / RATE_HZ:.1f} s, {len(truth)} words")


def talk() -> None:
    """Write talk.wav."""
    random = np.random.default_rng(SEED)
    voices = (RMS, SLT, AWB, KAL, US, GB, FEMALE)
    said = [say(voices[n % len(voices)], sentence) for n, sentence in enumerate(TALK)]
    pauses = random.uniform(0.2, 0.8, len(said)) * RATE_HZ
    speech = np.concatenate([np.pad(one, (round(pause), 0)) for one, pause in zip(said, pauses, strict=True)])
    samples = background(len(speech), random) + speech
    soundfile.write(FOLDER / "talk.wav", np.clip(samples, -1, 1), RATE_HZ, subtype="PCM_16")
    print(f"talk.wav: {len(samples) / RATE_HZ:.1f} s, {len(said)} sentences")


if __name__ == "__main__":
    main()
