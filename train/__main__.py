"""python -m train: fetch, synthesise, fit, evaluate, pack, results."""

import argparse
import logging
import os
import sys
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kwsd.errors import KwsdError, TrainingError
from train.options import HOURS, HOURS_OF_HOME, SEED, add_evaluate_options, cache_of, corpus_of, data_options
from train.recordings.corpus import KEYWORDS, RATE_HZ, SPLITS, Corpus, find_recordings

if TYPE_CHECKING:
    from train.measure.streams import Streams
    from train.measure.subject import Subject

# Set before Keras is imported: otherwise TensorFlow prints long messages about missing GPUs on stderr.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main() -> int:
    """Run the command and return its exit status."""
    args = _parser().parse_args()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # its import warns of a home folder without a cache
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        args.function(args)
    except KwsdError as error:
        print(f"train: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        print(f"train: needs the package {error.name}; use the environment of `make test`", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"train: interrupted{args.after_interruption}", file=sys.stderr)
        return 130
    except OSError as error:  # such as a full disk or a missing permission: print the system's message
        print(f"train: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _fetch(args: argparse.Namespace) -> None:
    from train.recordings.fetch import ARCHIVES, fetch

    fetch(args.dir, ARCHIVES[args.version])


def _fit(args: argparse.Namespace) -> None:
    from train.architectures import ARCHITECTURES
    from train.fit import fit
    from train.hyperparameters import Hyperparameters

    if args.architecture not in ARCHITECTURES:
        raise TrainingError(f"--architecture {args.architecture}: unknown; there are {', '.join(ARCHITECTURES)}")

    changes = [f"{name}={value}" for name in ("seed", "epochs") if (value := getattr(args, name)) is not None]
    hyper = Hyperparameters().changed([*changes, *args.set])
    corpus = corpus_of(args, tuple(args.words.split(",")))
    if missing := [name for name in ("speech", "noise") if not getattr(args, name)]:
        names = " and ".join(f"--{name}" for name in missing)
        print(f"without {names} the model will fire more often in talk and noise", flush=True)
    fit(corpus, args.architecture, hyper, args.run, cache_of(args))


def _evaluate(args: argparse.Namespace) -> None:
    from train.measure.clips import check_labels, evaluate
    from train.measure.subject import load_subject

    _settle_stream_options(args)
    subject = load_subject(args.model)
    corpus = corpus_of(args, tuple(subject.card.keywords))
    check_labels(subject, corpus)
    folder = args.folder or (args.model if args.model.is_dir() else args.model.with_suffix(""))
    if folder.is_file():
        raise TrainingError(f"{folder}: is a file; give -o a folder for the reports")
    if args.stream:
        _evaluate_streams(args, subject, corpus, folder)
        return
    report = evaluate(subject, corpus, args.split, folder)
    for label, recall in report["recall"].items():
        print(f"{label:>10}  {recall:.3f}")
    for snr_db, accuracy in report["accuracy_at_snr_db"].items():
        print(f"accuracy at {snr_db:>2} dB SNR: {accuracy:.4f}")
    print(f"accuracy in longer clips: {report['longer_clips']['accuracy']:.4f}")
    print(f"accuracy with kwsd label --augment: {report['accuracy_augmented']:.4f}")
    low, high = report["interval_95"]
    print(
        f"accuracy {report['accuracy']:.4f} (95 %: {low:.4f} to {high:.4f}) on {report['n_clips']} {args.split} clips"
    )
    print(f"written: {folder}/{args.split}.json, .png, .csv")


def _settle_stream_options(args: argparse.Namespace) -> None:
    """Refuse options that do not fit together, and fill in the defaults for streams."""
    if args.home and args.background:
        raise TrainingError("--home, --background: choose one")
    args.stream = args.stream or args.home
    if not args.stream:
        for name, given in (("--background", args.background), ("--hours", args.hours), ("--seed", args.seed)):
            if given is not None:
                raise TrainingError(f"{name}: needs --stream")
        if args.split == "training":
            raise TrainingError("--split training: needs --stream; accuracy on its own training clips proves nothing")
    if args.hours is not None:
        _check_hours(args.hours)
    args.hours = args.hours or (HOURS_OF_HOME if args.home else HOURS)
    args.seed = SEED if args.seed is None else args.seed


def _evaluate_streams(args: argparse.Namespace, subject: "Subject", corpus: Corpus, folder: Path) -> None:
    from train.measure.home import day_at_home
    from train.measure.stream_report import evaluate_streams
    from train.measure.streams import streams_of
    from train.recordings.material import gather

    if args.background:
        streams = _over_own_recordings(args, corpus)
    elif args.home:
        streams = day_at_home(gather(corpus, args.split, cache_of(args)), args.hours, args.seed)
    else:
        streams = streams_of(gather(corpus, args.split, cache_of(args)), args.hours, args.seed)
    report = evaluate_streams(subject, streams, args.split, folder)
    for name, stream in report["streams"].items():
        _print_stream(name, stream)
    for name, day in report.get("day", {}).items():
        low, high = day["false_95"]
        print(
            f"{day['hours']:g} h of {name} a day: misses {day['missed']:.1%}, {day['substitutions']:g} substitutions, "
            f"{day['false']:g} false events ({low:g} to {high:g})"
        )
    print(f"written: {folder}/{streams.kind}-{args.split}.json, .png")


def _check_hours(hours: float) -> None:
    if not 0 < hours < 1000:
        raise TrainingError(f"--hours {hours:g}: must be above 0 and below 1000, such as 3")


def _over_own_recordings(args: argparse.Namespace, corpus: Corpus) -> "Streams":
    from train.measure.streams import over_own_recordings
    from train.recordings.material import gather

    own = replace(corpus, noises=find_recordings(args.background), speech={split: [] for split in SPLITS})
    material = gather(own, args.split, cache_of(args), whole_noises=True)
    hours = float(material.lengths[material.noises].sum()) / RATE_HZ / 3600
    if hours < args.hours:
        print(f"the stream lasts {hours:.2f} hours, like your recordings: repeating them would prove nothing")
    return over_own_recordings(material, args.hours, args.seed)


def _print_stream(name: str, stream: dict[str, Any]) -> None:
    from train.measure.stream_report import caveat

    print(f"{name}: {stream['n_keywords']} keywords in {stream['hours']:.2f} hours")
    for rate, at in stream["at_rate"].items():
        low, high = at["frr_95"]
        print(
            f"  at {rate:>3} false accepts an hour, threshold {at['threshold']:.4f}: "
            f"misses {at['frr']:.1%} ({low:.1%} to {high:.1%}), {at['substitutions']} substitutions, "
            f"latency p95 {at['latency_p95']} s{caveat(at)}"
        )
    own = stream["own_thresholds"]
    low, high = own["per_hour_95"]
    print(
        f"  with its own thresholds: misses {own['frr']:.1%}, "
        f"{own['per_hour']:.2f} false accepts an hour ({low:.2f} to {high:.2f}), latency p95 {own['latency_p95']} s"
    )


def _pack(args: argparse.Namespace) -> None:
    from kwsd.core.model import load_model
    from kwsd.learn.model_file import learnt_words
    from train.pack import make_pack

    _check_hours(args.hours)
    model = load_model(args.model, "cpu")
    learnt = learnt_words(model.card)
    keywords = tuple(keyword for keyword in model.card.keywords if keyword not in learnt)
    pack = make_pack(model, corpus_of(args, keywords), args.hours, args.attribution)
    pack.save(args.output)
    n_mb = args.output.stat().st_size / 1e6
    print(f"{args.output}: {len(pack.training)} and {len(pack.measuring)} spans, {n_mb:.1f} MB")


def _synthesise(args: argparse.Namespace) -> None:
    from kwsd.learn.synthesis import find_synthesiser
    from train.recordings.synthetic import synthesise_talk
    from train.recordings.talk import Talk

    _check_hours(args.hours)
    if args.seed < 0:
        raise TrainingError(f"--seed {args.seed}: must be 0 or more")
    talk = Talk(tuple(args.words.split(",")), tuple(args.near.split(",")) if args.near else ())
    n_made = synthesise_talk(args.dir, args.hours, find_synthesiser(args.voices), talk, args.seed)
    print(f"{args.dir}: {n_made} files made, for python -m train fit --speech {args.dir}")


def _results(args: argparse.Namespace) -> None:
    from train.measure.results import write_results

    write_results(args.folder, args.output)
    print(f"written: {args.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train and measure Keras models.")
    parser.set_defaults(after_interruption="")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("fetch", help="download the Speech Commands recordings")
    command.add_argument("dir", type=Path, metavar="DIR", help="folder for the recordings")
    command.add_argument("--version", choices=("v0.01", "v0.02"), default="v0.02", help="version (v0.02)")
    command.set_defaults(function=_fetch)

    command = commands.add_parser("synthesise", help="let a speech synthesiser talk, as speech without keywords")
    command.add_argument("dir", type=Path, metavar="DIR", help="folder for the recordings")
    command.add_argument("--hours", type=float, default=1.0, help="hours of talk to make (%(default)s)")
    command.add_argument(
        "--voices", type=Path, metavar="DIR", help="voices of kokoro-onnx or piper, as in `kwsd learn`"
    )
    command.add_argument("--words", default=",".join(KEYWORDS), help="keywords, which are not said (the usual ten)")
    command.add_argument("--near", default="", metavar="A,B", help="more words that resemble your keywords")
    command.add_argument("--seed", type=int, default=1)
    command.set_defaults(function=_synthesise, after_interruption="; the same command continues where it stopped")

    data = data_options()
    command = commands.add_parser("fit", parents=[data], help="train; the same command resumes")
    command.add_argument("--architecture", default="ds_tcn", metavar="NAME", help="ds_tcn, light_cnn or light_cnn_wide")
    command.add_argument("--words", default=",".join(KEYWORDS), help="keywords, separated by commas (the usual ten)")
    command.add_argument("-o", dest="run", type=Path, required=True, metavar="RUN", help="folder for the result")
    command.add_argument("--seed", type=int)
    command.add_argument("--epochs", type=int)
    command.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other hyper-parameter")
    command.set_defaults(function=_fit, after_interruption="; the same command continues where it stopped")

    command = commands.add_parser("evaluate", parents=[data], help="measure a trained model")
    add_evaluate_options(command)
    command.set_defaults(function=_evaluate)

    command = commands.add_parser("pack", parents=[data], help="make a model's pack, which `kwsd learn` needs")
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file")
    command.add_argument("--hours", type=float, default=2.4, help="hours of audio in the pack (%(default)s)")
    command.add_argument("--attribution", required=True, metavar="TEXT", help="source and licence of the recordings")
    command.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE")
    command.set_defaults(function=_pack)

    command = commands.add_parser("results", help="write docs/RESULTS.md from reports")
    command.add_argument("folder", type=Path, metavar="DIR", help="contains a folder of reports for each model")
    command.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE")
    command.set_defaults(function=_results)
    return parser


if __name__ == "__main__":
    sys.exit(main())
