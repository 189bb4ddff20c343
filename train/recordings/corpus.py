"""The recordings: finds the clips, labels them, and splits them for training, validation and testing.

Law: the split is by speaker, never by file. A corpus contains only names, lengths and the two
official lists; samples are read when features are made.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from kwsd.errors import AudioError, TrainingError
from kwsd.files import wavs_in
from kwsd.sources.recording import open_recording

KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
SILENCE, UNKNOWN = "silence", "unknown"
SPLITS = ("training", "validation", "testing")
RATE_HZ = 16000
"""All recordings for training must have this rate; any other rate is refused."""

NOISE_FOLDER = "_background_noise_"
CLIP_SAMPLES = RATE_HZ


@dataclass(frozen=True, slots=True)
class Clip:
    """A recording, or the part of it that makes a training example of one second.

    Attributes:
        path: the recording.
        label: one of the corpus's labels.
        start, n_samples: the part of the recording, in samples.
        gain: factor for the samples.
    """

    path: Path
    label: str
    start: int
    n_samples: int
    gain: float = 1.0


@dataclass(frozen=True, slots=True)
class Corpus:
    """All recordings: clips of words by split, noise, and other speech.

    Attributes:
        root: the folder that contains a folder for each word.
        clips: for each split, the clips of all words with their labels.
        noises: whole noise recordings, labelled silence.
        speech: whole recordings that contain no keyword, by split, labelled unknown.
    """

    root: Path
    labels: tuple[str, ...]
    clips: dict[str, list[Clip]]
    noises: list[Clip]
    speech: dict[str, list[Clip]]

    @property
    def n_nameless(self) -> int:
        """The number of clips whose file names do not identify the speaker."""
        return sum("_nohash_" not in clip.path.name for clips in self.clips.values() for clip in clips)

    def files_digest(self) -> str:
        """Identify the set of recordings: SHA-256 of the split, name and length of each, in hex."""
        groups = [*self.clips.items(), ("noise", self.noises), *self.speech.items()]
        lines = [
            f"{group} {clip.path.parent.name}/{clip.path.name} {clip.n_samples}"
            for group, clips in groups
            for clip in clips
        ]
        return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def find_corpus(
    data: Path, keywords: tuple[str, ...] = KEYWORDS, noise: tuple[Path, ...] = (), speech: tuple[Path, ...] = ()
) -> Corpus:
    """Find the recordings of the official layout, or of Kaggle's `train/audio`.

    Args:
        data: the folder that contains a folder for each word, or Kaggle's or another usual folder above it.
        keywords: words to be recognised; all others are `unknown`.
        noise: folders of noise recordings in addition to `_background_noise_`.
        speech: folders of recordings without keywords, one speaker per file.

    Raises:
        TrainingError: no recordings, a missing keyword, an unreadable file, or a wrong rate.
    """
    if not all(keywords):
        raise TrainingError("--words: a word is empty; separate words by single commas")
    if own := [word for word in keywords if word in (SILENCE, UNKNOWN)]:
        raise TrainingError(f"--words: {own[0]} is the name of a built-in label; rename that word")
    root = _find_root(data, keywords)
    words = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith(("_", ".")))
    if missing := [word for word in keywords if word not in words]:
        raise TrainingError(f"{root}: no folder for {', '.join(missing)}; there are {', '.join(words)}")
    if clashing := [word for word in words if word in (SILENCE, UNKNOWN)]:
        raise TrainingError(f"{root}: {clashing[0]} is the name of a built-in label; rename that word")
    if len(set(keywords)) < len(keywords):
        raise TrainingError(f"{', '.join(keywords)}: a keyword is used twice")
    split_of = _split_lists(root)
    listed = {name.partition("/")[0] for name in split_of}  # words of the official data, not the user's own
    clips: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for word in words:
        for path in wavs_in(root / word):
            name = f"{word}/{path.name}"
            split = split_of.get(name, "training") if word in listed else split_by_speaker(path.name)
            clips[split].append(_whole(path, word if word in keywords else UNKNOWN))
    for word in keywords:
        if not wavs_in(root / word):
            raise TrainingError(f"{root / word}: contains no WAV files")
    noises = [_whole(path, SILENCE) for folder in (root / NOISE_FOLDER, *noise) for path in _wavs_below(folder)]
    by_reader: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for path in (path for folder in speech for path in _wavs_below(folder)):
        by_reader[split_by_speaker(path.stem)].append(_whole(path, UNKNOWN))
    return Corpus(root, (*keywords, SILENCE, UNKNOWN), clips, noises, by_reader)


def find_recordings(folders: list[Path]) -> list[Clip]:
    """Find all WAV files below some folders, as whole noise recordings.

    Raises:
        TrainingError: a missing folder, no recordings, an unreadable file, or a wrong rate.
    """
    clips = [_whole(path, SILENCE) for folder in folders for path in _wavs_below(folder)]
    if not clips:
        raise TrainingError(f"{', '.join(map(str, folders))}: no WAV files there")
    return clips


def speaker_of(name: str) -> str:
    """The speaker that a file's name tells, or the whole name."""
    return re.sub(r"_nohash_.*$", "", name)


def split_by_speaker(name: str) -> str:
    """The official split of a clip, by its name: 10 % of the speakers for validation, 10 % for testing.

    Source: `which_set` in the README of the Speech Commands data set. It uses the SHA-1 of
    everything before `_nohash_`, so a speaker's clips stay together as the data set grows.
    """
    digest = hashlib.sha1(speaker_of(name).encode(errors="surrogateescape")).hexdigest()
    percent = int(digest, 16) % 2**27 * (100 / (2**27 - 1))
    return "validation" if percent < 10 else "testing" if percent < 20 else "training"


def balanced(corpus: Corpus, split: str, random: np.random.Generator) -> list[Clip]:
    """Balance a split like the official test set: as many `unknown` and `silence` clips as of an average keyword.

    Raises:
        TrainingError: the split has no clips of keywords.
    """
    keywords = [clip for clip in corpus.clips[split] if clip.label != UNKNOWN]
    others = [clip for clip in corpus.clips[split] if clip.label == UNKNOWN]
    if not keywords:
        raise TrainingError(f"{corpus.root}: no recordings for the {split} split")
    n_keyword = round(len(keywords) / (len(corpus.labels) - 2))
    chosen = random.permutation(len(others))[:n_keyword]
    cuts = silence(corpus, split, n_keyword if corpus.noises else 0, random)
    return [*keywords, *(others[i] for i in chosen), *cuts]


def silence(corpus: Corpus, split: str, n_cuts: int, random: np.random.Generator) -> list[Clip]:
    """Cut seconds from this split's part of the noise recordings, with random gains.

    Raises:
        TrainingError: `n_cuts` is not 0, and no noise recording is long enough.
    """
    parts = noise_parts(corpus, split)
    if n_cuts and not parts:
        raise TrainingError(f"{corpus.root / NOISE_FOLDER}: no noise recordings of at least 3 s to cut silence from")
    gains = 10 ** (random.uniform(-60, 0, n_cuts) / 20)
    return [
        replace(cut, gain=float(gain)) for cut, gain in zip(cut_at_random(parts, n_cuts, random), gains, strict=True)
    ]


def noise_parts(corpus: Corpus, split: str) -> list[Clip]:
    """The part of each noise recording that belongs to a split. Recordings that are too short are left out.

    Noise has no speakers, so it is split by time: the last tenth, but at least a second, is for
    testing, the same length before it for validation, and the rest for training.
    """
    parts = []
    for noise in corpus.noises:
        held_out = max(CLIP_SAMPLES, noise.n_samples // 10)
        rest = noise.n_samples - 2 * held_out
        start, n_samples = {
            "training": (0, rest),
            "validation": (rest, held_out),
            "testing": (rest + held_out, held_out),
        }[split]
        if rest >= CLIP_SAMPLES:
            parts.append(replace(noise, start=start, n_samples=n_samples))
    return parts


def cut_at_random(recordings: list[Clip], n_cuts: int, random: np.random.Generator) -> list[Clip]:
    """Cut seconds at random places. All places in the recordings are equally likely."""
    if not n_cuts:
        return []
    lengths = np.array([max(1, recording.n_samples - CLIP_SAMPLES) for recording in recordings], float)
    chosen = random.choice(len(recordings), n_cuts, p=lengths / lengths.sum())
    offsets = (random.random(n_cuts) * lengths[chosen]).astype(int)
    return [
        replace(
            recordings[i], start=recordings[i].start + int(offset), n_samples=min(CLIP_SAMPLES, recordings[i].n_samples)
        )
        for i, offset in zip(chosen, offsets, strict=True)
    ]


def second_around(onset: int, end: int, n_samples: int) -> slice:
    """The second of a longer clip with its word, which begins and ends there, in the middle; all of a shorter clip."""
    first = min(max(0, (onset + end - CLIP_SAMPLES) // 2), max(0, n_samples - CLIP_SAMPLES))
    return slice(first, first + CLIP_SAMPLES)


def read_clip(clip: Clip) -> np.ndarray:
    """Shape: -> (clip.n_samples,), float32, gain applied.

    Raises:
        TrainingError: the file cannot be read any more.
    """
    return read_samples(clip).astype(np.float32) * np.float32(clip.gain / 32768)


def read_samples(clip: Clip) -> np.ndarray:
    """Shape: -> (clip.n_samples,), int16; full scale is 32768, whatever the file's own format.

    Raises:
        TrainingError: the file cannot be read any more.
    """
    try:
        with open_recording(clip.path) as file:
            file.seek(clip.start)
            samples = file.read(clip.n_samples, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise TrainingError(f"{clip.path}: cannot be read ({error.error_string})") from None
    except AudioError as error:
        raise TrainingError(str(error)) from None
    return np.clip(np.rint(np.nan_to_num(samples) * 32768), -32768, 32767).astype(np.int16)


def _find_root(data: Path, keywords: tuple[str, ...]) -> Path:
    for root in (data, data / "train" / "audio", data / "audio", data / "speech_commands"):
        if any(wavs_in(root / word) for word in keywords):
            return root
    raise TrainingError(f"{data}: no recordings found; expected a folder of WAV files for each word")


def _split_lists(root: Path) -> dict[str, str]:
    """Read the official lists. They are beside the words or, in Kaggle's layout, one folder above."""
    split_of = {}
    for split in ("validation", "testing"):
        for path in (root / f"{split}_list.txt", root.parent / f"{split}_list.txt"):
            if path.is_file():
                names = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split()  # file names
                split_of.update(dict.fromkeys(names, split))
                break
    return split_of


def _wavs_below(folder: Path) -> list[Path]:
    if not folder.is_dir() and folder.name != NOISE_FOLDER:
        raise TrainingError(f"{folder}: no such folder")
    found = wavs_in(folder, also_below=True)
    if not found and folder.name != NOISE_FOLDER:
        raise TrainingError(f"{folder}: no WAV files below it")
    return found


def _whole(path: Path, label: str) -> Clip:
    with open_recording(path) as file:
        rate_hz, n_channels, n_samples = file.samplerate, file.channels, file.frames
    if rate_hz != RATE_HZ or n_channels != 1:
        raise TrainingError(
            f"{path}: {rate_hz} Hz with {n_channels} channels, expected {RATE_HZ} Hz mono; convert it first"
        )
    return Clip(path, label, 0, n_samples)
