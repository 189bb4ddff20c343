"""`kwsd learn`: words of one's own, from recordings, a microphone or a speech synthesiser."""

import argparse
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kwsd.audio import dbfs
from kwsd.commands.calibrate import refuse_budget, refuse_existing
from kwsd.config import StreamConfig
from kwsd.core.model import DEFAULT_MODEL
from kwsd.errors import ConfigError, LearnError
from kwsd.plain import meter, plain
from kwsd.sources.base import make_source

if missing := [name for module, name in (("onnx", "onnx"), ("sklearn", "scikit-learn")) if find_spec(module) is None]:
    raise LearnError(f"needs {' and '.join(missing)}, not installed: install kwsd[learn]")

from kwsd.learn.learn import FEWEST, MOST, Teacher
from kwsd.learn.lesson import Lesson
from kwsd.learn.model_file import forget
from kwsd.learn.pack import DEFAULT_PACK
from kwsd.learn.synthesis import N_TAKES, Synthesiser, find_synthesiser, synthesise
from kwsd.learn.takes import Take, cut_take, read_take, resampled
from kwsd.marks import Marked, marked_in
from kwsd.sources.recording import read_recording

_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".caf", ".au", ".w64", ".rf64"}
_TAKE_SECONDS = 2.5
_SOFT_DBFS = -45.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes:
        words: the recordings of each word.
        model: to add the words to; pack: fits it.
        clips: folder of kept clips with marks; None for none.
        n_recorded: takes to record of each word.
        synthesises: whether an installed synthesiser speaks the words, too.
        voices: a folder of voices that shall speak them; None for the usual one.
    """

    words: dict[str, list[Path]]
    output: Path
    model: Path
    pack: Path
    per_hour: float
    is_only: bool
    clips: Path | None
    n_recorded: int | None
    source: str
    synthesises: bool
    voices: Path | None


def request_of(args: argparse.Namespace) -> Request:
    """What the options of `kwsd learn` ask for.

    Raises:
        ConfigError: as `words_and_files`.
    """
    return Request(
        words=words_and_files(args.items),
        output=args.output,
        model=args.model or DEFAULT_MODEL,
        pack=args.pack or DEFAULT_PACK,
        per_hour=args.false_accepts_per_hour,
        is_only=args.only,
        clips=args.clips,
        n_recorded=args.record,
        source=args.source,
        synthesises=args.synthesise,
        voices=args.voices,
    )


def words_and_files(items: list[str]) -> dict[str, list[Path]]:
    """Sort `computer me/1.wav lamp lamp/1.wav` into words with their recordings.

    Raises:
        ConfigError: it does not begin with a word, or a word comes twice.
    """
    words: dict[str, list[Path]] = {}
    for item in items:
        if "/" in item or Path(item).suffix.lower() in _SUFFIXES or Path(item).is_file():
            if not words:
                raise ConfigError(f"{item}: a recording without a word; write `kwsd learn WORD {item} … -o MODEL`")
            words[next(reversed(words))].append(Path(item))
        elif item in words:
            raise ConfigError(f"{item}: is named twice")
        else:
            words[item] = []
    return words


def learn(request: Request) -> list[Lesson]:
    """Learn words and write the new model; a bar shows the progress.

    Raises:
        KwsdError: nothing is written.
    """
    _check_options(request)
    teacher = Teacher(request.model, request.pack)
    marked = marked_in(request.clips) if request.clips else []
    words = request.words or {word: [] for word in sorted({one.said for one in marked if one.said})}
    if not words:
        raise ConfigError("which word? write `kwsd learn WORD RECORDING… -o MODEL`")
    for word in words:
        teacher.check_name(word)
    synthesiser = find_synthesiser(request.voices) if request.synthesises or request.voices else None
    takes = {word: _takes(word, files, marked, request, synthesiser) for word, files in words.items()}
    lessons = []
    n_parts = sum(Teacher.n_parts(word, own) for word, own in takes.items())
    with tqdm(total=n_parts, unit=" parts", disable=None, leave=False) as bar:
        for word, own in takes.items():
            bar.set_description(plain(word))
            wrong = [resampled(*read_recording(one.path)) for one in marked if one.said != word]
            lessons.append(teacher.learn(word, own, request.per_hour, bar.update, wrong))
            teacher.add(lessons[-1])
    teacher.save(request.output, request.is_only)
    return lessons


def _check_options(request: Request) -> None:
    """Check the options before anything is recorded or learnt."""
    refuse_budget(request.per_hour)
    if request.n_recorded is not None and not FEWEST <= request.n_recorded <= MOST:
        raise ConfigError(f"--record {request.n_recorded}: record {FEWEST} to {MOST} takes")
    if request.n_recorded and request.source == "-":
        raise ConfigError("--source -: standard input is for the answers to prompts; name a device or a file")
    if request.output != request.model:
        refuse_existing(request.output)


def forget_words(words: list[str], model: Path | None, output: Path) -> list[str]:
    """Write a model without some learnt words; returns the keywords that remain.

    Raises:
        KwsdError: nothing is written.
    """
    if model is None:
        raise ConfigError("--forget: name the model that has learnt the word, with --model")
    if output != model:
        refuse_existing(output)
    return forget(model, words, output)


def _takes(
    word: str, files: list[Path], marked: list[Marked], request: Request, synthesiser: Synthesiser | None
) -> list[Take]:
    takes = [read_take(path) for path in [*files, *(one.path for one in marked if one.said == word)]]
    takes = list({take.samples.tobytes(): take for take in takes}.values())  # copies teach nothing
    if request.n_recorded:
        takes += _recorded(word, request.n_recorded, request.source)
    if synthesiser:
        with tqdm(total=N_TAKES, desc=synthesiser.name, unit=" takes", disable=None, leave=False) as bar:
            takes += synthesise(word, synthesiser, bar.update)
    if not takes:
        raise ConfigError(f"{word}: no recordings; name files, or give --record, --from or --synthesise")
    return takes


def _recorded(word: str, n: int, source: str) -> list[Take]:
    """Record takes, each after a prompt. One that is silent, or that its speaker rejects, is repeated."""
    takes: list[Take] = []
    problem = ""
    while len(takes) < n:
        _ask(f"{problem}take {len(takes) + 1} of {n}: press Enter, then say “{word}”")
        name = Path(f"take {len(takes) + 1}")
        try:
            take = _record(name, source)
        except LearnError as error:
            problem = f"  {error}\n"
            continue
        problem = ""
        hint = f", {take.note}" if take.note else ", rather soft" if dbfs(take.samples) < _SOFT_DBFS else ""
        if _ask(f"  {meter(dbfs(take.samples))}, {take.seconds:.1f} s{hint}; Enter keeps it, r repeats it") != "r":
            takes.append(take)
    return takes


def _ask(question: str) -> str:
    try:
        return input(f"{question} ").strip().lower()
    except EOFError:
        raise ConfigError("--record: needs a keyboard; standard input has ended") from None


def _record(name: Path, source: str) -> Take:
    rate_hz, chunks = make_source(StreamConfig(source=source)).open()
    parts: list[np.ndarray] = []
    with closing(chunks):
        for chunk in chunks:
            parts.append(chunk.samples)
            if sum(map(len, parts)) >= _TAKE_SECONDS * rate_hz:
                break
    return cut_take(name, resampled(np.concatenate(parts), rate_hz))
