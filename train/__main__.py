"""python -m train: fetch, fit, evaluate."""

import argparse
import os
import sys
from pathlib import Path

from kwsd.errors import KwsdError, TrainingError
from train.data import KEYWORDS, SPLITS, Corpus, find_corpus

# Before anything imports Keras: TensorFlow reports missing GPUs at length on stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> int:
    """The command. Returns its exit status."""
    args = _parser().parse_args()
    try:
        args.function(args)
    except KwsdError as error:
        print(f"train: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("train: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    return 0


def _fetch(args: argparse.Namespace) -> None:
    from train.fetch import ARCHIVES, fetch

    fetch(args.dir, ARCHIVES[args.version])


def _fit(args: argparse.Namespace) -> None:
    from train.architectures import ARCHITECTURES
    from train.fit import fit
    from train.hyperparameters import Hyperparameters

    if args.architecture not in ARCHITECTURES:
        raise TrainingError(f"--architecture {args.architecture}: unknown; there are {', '.join(ARCHITECTURES)}")

    changes = [f"{name}={value}" for name in ("seed", "epochs") if (value := getattr(args, name)) is not None]
    hyper = Hyperparameters().changed([*changes, *args.set])
    fit(_corpus(args, tuple(args.words.split(","))), args.architecture, hyper, args.run, args.cache)


def _evaluate(args: argparse.Namespace) -> None:
    from train.evaluate import evaluate, read_config

    keywords = tuple(read_config(args.run)["labels"][:-2])  # the corpus puts silence and unknown last
    report = evaluate(args.run, _corpus(args, keywords), args.split, args.cache)
    for label, recall in report["recall"].items():
        print(f"{label:>10}  {recall:.3f}")
    low, high = report["interval_95"]
    print(
        f"accuracy {report['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}) on {report['n_clips']} {args.split} clips"
    )
    print(f"written: {args.run}/{args.split}.json, .png, .csv")


def _corpus(args: argparse.Namespace, keywords: tuple[str, ...]) -> Corpus:
    return find_corpus(args.data, keywords, tuple(args.noise), tuple(args.speech))


def _parser() -> argparse.ArgumentParser:
    from train.material import default_cache

    parser = argparse.ArgumentParser(prog="python -m train", description="From recordings to a Keras model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("fetch", help="download the Speech Commands recordings")
    command.add_argument("dir", type=Path, metavar="DIR", help="folder for the recordings")
    command.add_argument("--version", choices=("v0.01", "v0.02"), default="v0.02", help="of the data set (v0.02)")
    command.set_defaults(function=_fetch)

    data = argparse.ArgumentParser(add_help=False)
    data.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with a folder for each word")
    data.add_argument("--noise", type=Path, action="append", default=[], metavar="DIR", help="more noise recordings")
    data.add_argument("--speech", type=Path, action="append", default=[], metavar="DIR", help="speech without keywords")
    data.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR", help="for features (%(default)s)")

    command = commands.add_parser("fit", parents=[data], help="train; the same command resumes")
    command.add_argument("--architecture", required=True, metavar="NAME", help="light_cnn or light_cnn_wide")
    command.add_argument("--words", default=",".join(KEYWORDS), help="keywords, separated by commas (the ten)")
    command.add_argument("-o", dest="run", type=Path, required=True, metavar="RUN", help="folder for the result")
    command.add_argument("--seed", type=int)
    command.add_argument("--epochs", type=int)
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other hyper-parameter")
    command.set_defaults(function=_fit)

    command = commands.add_parser("evaluate", parents=[data], help="measure a trained model")
    command.add_argument("run", type=Path, metavar="RUN")
    command.add_argument("--split", choices=SPLITS[1:], default="validation")
    command.set_defaults(function=_evaluate)
    return parser


if __name__ == "__main__":
    sys.exit(main())
