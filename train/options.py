"""Command-line options that several commands of `python -m train` have, and those of `evaluate`."""

import argparse
import sys
from pathlib import Path

from train.recordings.corpus import SPLITS, Corpus, find_corpus
from train.recordings.material import default_cache

HOURS_OF_HOME = 24.0
HOURS, SEED = 3.0, 3
"""Of streams. The thresholds were chosen with another seed, so they are not measured on the same streams."""


def data_options() -> argparse.ArgumentParser:
    """The options that locate the recordings."""
    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", type=Path, required=True, metavar="DIR", help="contains a folder for each word")
    data.add_argument("--noise", type=Path, action="append", default=[], metavar="DIR", help="adds noise recordings")
    data.add_argument(
        "--speech",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="adds speech without keywords, one speaker per file",
    )
    data.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="folder for cached recordings ($XDG_CACHE_HOME/kwsd, or ~/.cache/kwsd)",
    )
    return data


def corpus_of(args: argparse.Namespace, keywords: tuple[str, ...]) -> Corpus:
    """Find the recordings that `data_options` locate; warn of those whose speakers have no name."""
    corpus = find_corpus(args.data, keywords, tuple(args.noise), tuple(args.speech))
    if n_nameless := corpus.n_nameless:
        print(
            f"train: {corpus.root}: {n_nameless} file names do not identify a speaker (SPEAKER_nohash_N.wav); each "
            "counts as a separate speaker, so the same voice may be in training and in measurement",
            file=sys.stderr,
        )
    return corpus


def cache_of(args: argparse.Namespace) -> Path:
    """The folder for cached recordings."""
    return args.cache or default_cache()


def add_evaluate_options(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    command.add_argument("model", type=Path, metavar="RUN-OR-MODEL", help="a run's folder, or an ONNX file")
    command.add_argument(
        "--split",
        choices=SPLITS,
        default="validation",
        help="speakers to measure with (%(default)s); training, with --stream: what it misses of its own recordings",
    )
    command.add_argument("--stream", action="store_true", help="measure on hours of stream instead of clips")
    command.add_argument("--home", action="store_true", help="measure on a day at home: quiet, talk, television, music")
    command.add_argument(
        "--hours", type=float, help=f"hours of each kind of stream ({HOURS:g}), or of the day ({HOURS_OF_HOME:g})"
    )
    command.add_argument("--seed", type=int, help=f"seed of the streams ({SEED}; thresholds were chosen with 1)")
    command.add_argument(
        "--background", type=Path, action="append", metavar="DIR", help="mix keywords into your own recordings instead"
    )
    command.add_argument(
        "-o",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="folder for the reports (the run folder, or FILE for FILE.onnx)",
    )
