"""The command line: kwsd run | listen | spot | calibrate | record | learn | mark | label | devices | check.

Each command imports what it needs, so that `kwsd listen` does not wait for ONNX Runtime.
"""

import argparse
import math
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kwsd import __version__, options
from kwsd.errors import ConfigError, KwsdError
from kwsd.plain import plain

if TYPE_CHECKING:
    from kwsd.config import Config
    from kwsd.core.model import Model


def main() -> int:
    """The `kwsd` command. Returns its exit status."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes, and a locale may lack "…"
    args = _parsed()
    try:
        return int(args.function(args))
    except KwsdError as error:
        _complain(error)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output has ended
        sys.stderr.close()
        return 141
    except OSError as error:  # a full disk, no descriptors left: reported in the system's words
        _complain(f"{error.filename or 'output'}: {error.strerror}")
        return 1


def _parsed() -> argparse.Namespace:
    """The command line. argparse ends a list of any length at the first option; `kwsd learn` continues it."""
    parser = _parser()
    args, rest = parser.parse_known_args()
    if rest and ("items" not in args or any(one.startswith("-") for one in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        args.items += rest
    return args


def _say(lines: str) -> None:
    print("\n".join(map(plain, lines.split("\n"))), flush=True)


def _complain(message: object) -> None:
    for line in filter(None, str(message).split("\n")):
        print(f"kwsd: {plain(line)}", file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    from kwsd.service import systemd
    from kwsd.service.daemon import run

    watch = None
    if sys.stdout.isatty() and not args.quiet:
        from kwsd.commands.show import watch_own

        watch = watch_own
    systemd.start_log()
    run(lambda: _config(args), watch)
    return 0


def _listen(args: argparse.Namespace) -> int:
    from kwsd.client import subscribe
    from kwsd.commands.execute import execute
    from kwsd.commands.merge import merge, since_of
    from kwsd.commands.show import printer
    from kwsd.protocol.events import DetectionEvent, Event, Hello

    def events_of(address: str | None) -> Iterator[Event]:
        return subscribe(
            address,
            labels=args.labels,
            streams=args.streams,
            since=since_of(address, args.since, **login),
            scores=args.scores,
            near_misses=args.near_misses,
            reconnect=not args.once,
            **login,
        )

    login: dict[str, Any] = {
        "token": args.token_file and options.token_in(args.token_file),
        "tls": args.tls_ca and options.trust_in(args.tls_ca),
    }
    addresses = args.socket or [None]
    is_one = len(addresses) == 1
    events = events_of(addresses[0]) if is_one else merge([partial(events_of, address) for address in addresses])
    show = printer(args.json, args.scores)
    for event in events:
        show(event)
        if isinstance(event, Hello) and (unknown := set(args.labels or ()) - set(event.labels)):
            _complain(f"--labels: the daemon's model does not know {', '.join(sorted(unknown))}")
        if args.exec and isinstance(event, DetectionEvent):
            _complain(execute(args.exec, event, args.exec_seconds))
    return 0


def _spot(args: argparse.Namespace) -> int:
    from kwsd.commands.spot import spot
    from kwsd.config import check_thresholds, load_config
    from kwsd.protocol.text import readable
    from kwsd.service.bus import Numbering

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends even a model whose graph never ends
    config = load_config(args.config, {"threshold": args.threshold, "model": args.model, "device": args.device})
    model, numbering = _model(config.model, config.device), Numbering()
    check_thresholds(config, model.card.keywords)
    status = 0
    for path in args.files:
        try:
            for detection in spot(path, model, config):
                event = numbering.stamp(detection)
                print(event.to_json() if args.json else readable(event), flush=True)
        except KwsdError as error:  # the other files are still processed
            _complain(error)
            status = error.exit_status
    return status


def _calibrate(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from kwsd.commands.calibrate import calibrate, check_marks, describe, refuse_existing, save_thresholds
    from kwsd.marks import marked_in

    if args.output:
        refuse_existing(args.output)
    marked = marked_in(args.clips) if args.clips else []
    model = _model(args.model, args.device)
    with tqdm(desc="listening", unit=" s", unit_scale=True, disable=None, leave=False) as bar:
        calibration = calibrate(args.files, model, args.false_accepts_per_hour, bar.update)
    _say("\n".join(describe(calibration)))
    if args.output:
        save_thresholds(calibration.thresholds, args.model, args.output)
        print(f"written: {args.output}, for kwsd run --config {args.output}")
    if marked:
        _say("\n".join(check_marks(marked, model, calibration.thresholds)))
    return 0


def _record(args: argparse.Namespace) -> int:
    from kwsd.commands.record import record

    seconds = record(args.source, args.file, args.minutes)
    _say(f"written: {args.file}, {seconds:.1f} s")
    return 0


def _mark(args: argparse.Namespace) -> int:
    from kwsd.marks import mark

    for path in args.clips:
        one = mark(path, args.mark)
        _say(f"{path}: heard {one.label}, said {one.said or 'nothing'}")
    return 0


def _learn(args: argparse.Namespace) -> int:
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: for so small a fit, more threads only wait
    from kwsd.commands.learn import forget_words, learn, request_of

    if args.forget:
        if args.items or args.only or args.clips or args.record or args.synthesise or args.voices:
            raise ConfigError("--forget: does nothing but forget; leave out the words and the other options")
        _say(f"keywords: {', '.join(forget_words(args.forget, args.model, args.output))}")
    else:
        lessons = learn(request_of(args))
        _say("\n".join(line for lesson in lessons for line in lesson.lines()))
    _say(f"written: {args.output}, for kwsd run --model {args.output}")
    return 0


def _label(args: argparse.Namespace) -> int:
    from kwsd.commands.label import label_corpus, spot_corpus
    from kwsd.corpus.open import open_corpus

    if args.spot and (args.scores or args.augment):
        raise ConfigError("--spot: has detections only; leave out --scores and --augment")
    corpus, model = open_corpus(args.sources, args.column), _model(args.model, args.device)
    try:
        if args.spot:
            summary = spot_corpus(corpus, args.output, model, args.ray)
        else:
            summary = label_corpus(corpus, args.output, model, args.scores, args.augment, args.ray)
    except KeyboardInterrupt:
        _complain("interrupted; the same command continues where it stopped")
        return 130
    for label in model.card.labels:
        print(f"{label:>10}  {summary.counts[label]}")
    before = f", {summary.n_before} of them by an earlier run" if summary.n_before else ""
    what = f"detections in {args.output}" if args.spot else f"clips labelled in {args.output}{before}"
    print(f"{summary.counts.total()} {what}")
    _complain("\n".join(summary.complaints(corpus, args.output)))
    return 0 if summary.is_complete else 1


def _devices(args: argparse.Namespace) -> int:
    from kwsd.sources.microphone import list_microphones

    lines = list_microphones()
    _say("\n".join(lines) if lines else "no microphones found; is one plugged in, and is the sound server running?")
    return 0 if lines else 1


def _check(args: argparse.Namespace) -> int:
    from kwsd.commands.check import check

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends even a model whose graph never ends
    results = []
    for is_fine, line in check(lambda: _config(args)):
        _say(f"{'ok  ' if is_fine else 'FAIL'}  {line}")
        results.append(is_fine)
    return 0 if all(results) else 1


def _model(path: Path | None, device: str | None) -> "Model":
    from kwsd.core.model import load_model

    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends even a model whose graph never ends
    model = load_model(path, device or "auto")
    signal.signal(signal.SIGINT, handler)
    if model.no_cuda:
        _complain(f"CUDA is not used: {model.no_cuda}")
    return model


def _config(args: argparse.Namespace) -> "Config":
    from kwsd.config import load_config

    names = ("source", "audio", "model", "device", "socket", "threshold", "pace")
    return load_config(args.config, {name: getattr(args, name) for name in names})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kwsd", description="Listens, and tells other programs which keyword was said."
    )
    parser.add_argument("--version", action="version", version=f"kwsd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: object, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help, parents=parents)
        command.set_defaults(function=function)
        return command

    model, settings = options.model_options(), options.run_options()
    command = add("run", _run, "run the daemon: listen, and serve events", settings)
    command.add_argument("--quiet", action="store_true", help="show no events and no level meter on a terminal")
    options.add_listen_options(add("listen", _listen, "print the events of a running daemon"))
    command = add("spot", _spot, "print the keywords in recordings", model)
    command.add_argument("--threshold", **options.THRESHOLD)
    command.add_argument("files", type=Path, nargs="+", metavar="FILE")
    command.add_argument(
        "--config", type=Path, action=options.Once, metavar="FILE", help="YAML file with thresholds or model"
    )
    command.add_argument("--json", action="store_true", help="print JSON, one event a line")
    command = add("calibrate", _calibrate, "choose thresholds for a budget of false accepts", model)
    command.add_argument("files", type=Path, nargs="+", metavar="RECORDING", help="of your room, without keywords")
    command.add_argument(
        "--false-accepts-per-hour", type=float, required=True, metavar="N", help="budget, all keywords together"
    )
    command.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write them for `kwsd run --config`")
    command.add_argument("--clips", type=Path, metavar="DIR", help="also try them on marked clips (`kwsd mark`)")
    command = add("record", _record, "record what the daemon would hear")
    command.add_argument("--source", default="microphone", help="as in `kwsd run` (%(default)s)")
    command.add_argument("file", type=Path, metavar="FILE", help="receives a WAV")
    command.add_argument("--minutes", type=float, default=math.inf, metavar="N", help="end after this time")
    command = add("mark", _mark, "mark kept clips, for `kwsd learn --from`")
    command.add_argument("mark", metavar="MARK", help="right; wrong, if no word was said; or the word that was said")
    command.add_argument("clips", type=Path, nargs="+", metavar="CLIP", help="WAV in the folder of clips")
    options.add_learn_options(add("learn", _learn, "learn a word of your own from recordings"))
    options.add_label_options(add("label", _label, "label a corpus of clips, as Kaggle wants it", model))
    add("devices", _devices, "list the microphones")
    add("check", _check, "check whether `kwsd run` would work here", settings)
    return parser
