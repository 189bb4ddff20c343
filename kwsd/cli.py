"""The command line: kwsd run | listen | spot | calibrate | label | devices | check | bench."""

import argparse
import logging
import sys
from dataclasses import replace
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kwsd import __version__
from kwsd.config import DEVICES, Config, load_config
from kwsd.errors import KwsdError, SocketError

if TYPE_CHECKING:
    import ssl

    from kwsd.requests import Since

# Each command imports what it needs: `kwsd listen` should not wait for ONNX Runtime.


def main() -> int:
    """The `kwsd` command. Returns its exit status."""
    args = _parser().parse_args()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be any bytes
    try:
        return int(args.function(args))
    except KwsdError as error:
        for line in str(error).splitlines():
            print(f"kwsd: {line}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 141
    except OSError as error:  # a full disk, no descriptors left: said as the system says it
        print(f"kwsd: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    config = _config(args)
    if not config.tls_certificate and not config.metrics:
        sys.modules.setdefault("ssl", None)  # type: ignore[arg-type]  # asyncio would load OpenSSL, 5 MB, for nothing
    from kwsd import systemd
    from kwsd.daemon import run

    if systemd.is_under_journal():
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[systemd.JournalHandler()])
    else:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    run(lambda: _config(args))
    return 0


def _listen(args: argparse.Namespace) -> int:
    from kwsd.client import subscribe
    from kwsd.events import DetectionEvent, Hello
    from kwsd.execute import execute
    from kwsd.readable import readable

    following = subscribe(
        args.socket,
        labels=args.labels,
        streams=args.streams,
        since=args.since,
        scores=args.scores,
        token=args.token_file and _token(args.token_file),
        tls=args.tls_ca and _trust(args.tls_ca),
        reconnect=not args.once,
    )
    for event in following:
        print(event.to_json() if args.json else readable(event), flush=True)
        if isinstance(event, Hello) and (unknown := set(args.labels or ()) - set(event.labels)):
            print(f"kwsd: --labels: the daemon's model does not know {', '.join(sorted(unknown))}", file=sys.stderr)
        if (
            args.exec
            and isinstance(event, DetectionEvent)
            and (problem := execute(args.exec, event, args.exec_seconds))
        ):
            print(f"kwsd: {problem}", file=sys.stderr)
    return 0


def _spot(args: argparse.Namespace) -> int:
    from kwsd.bus import Numbering
    from kwsd.config import check_thresholds
    from kwsd.model import load_model
    from kwsd.readable import readable
    from kwsd.spot import spot

    config = load_config(args.config, {"threshold": args.threshold, "model": args.model, "device": args.device})
    model, numbering = load_model(config.model, config.device), Numbering()
    check_thresholds(config, model.card.keywords)
    status = 0
    for path in args.files:
        try:
            for event in spot(path, model, replace(config, stream=str(path)), numbering):
                print(event.to_json() if args.json else readable(event), flush=True)
        except KwsdError as error:  # the other files are still wanted
            print(f"kwsd: {error}", file=sys.stderr)
            status = error.exit_status
    return status


def _calibrate(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from kwsd.calibrate import calibrate, describe, refuse_existing, save_thresholds
    from kwsd.model import load_model

    if args.output:
        refuse_existing(args.output)
    model = load_model(args.model, args.device or "auto")
    with tqdm(desc="hearing", unit=" s", unit_scale=True, disable=None, leave=False) as bar:
        calibration = calibrate(args.files, model, args.false_accepts_per_hour, bar.update)
    print("\n".join(describe(calibration)))
    if args.output:
        save_thresholds(calibration.thresholds, args.model, args.output)
        print(f"written: {args.output}, for kwsd run --config {args.output}")
    return 0


def _label(args: argparse.Namespace) -> int:
    from kwsd.label import label_folder
    from kwsd.model import load_model

    model = load_model(args.model, args.device or "auto")
    try:
        summary = label_folder(args.folder, args.output, model, args.scores, args.augment)
    except KeyboardInterrupt:
        print("kwsd: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    for label in model.card.labels:
        print(f"{label:>10}  {summary.counts[label]}")
    before = f", {summary.n_before} of them by an earlier run" if summary.n_before else ""
    print(f"{summary.counts.total()} clips labelled in {args.output}{before}")
    for error in summary.unreadable:
        print(f"kwsd: {error}", file=sys.stderr)
    if summary.unreadable:
        print(f"kwsd: {len(summary.unreadable)} clips could not be read and are not in {args.output}", file=sys.stderr)
    return 1 if summary.unreadable else 0


def _devices(args: argparse.Namespace) -> int:
    from kwsd.sources.microphone import list_microphones

    lines = list_microphones()
    print("\n".join(lines) if lines else "no microphones found; is one plugged in, and is the sound server running?")
    return 0 if lines else 1


def _check(args: argparse.Namespace) -> int:
    from kwsd.check import check

    results = []
    for is_fine, line in check(lambda: _config(args)):
        print(f"{'ok  ' if is_fine else 'FAIL'}  {line}", flush=True)
        results.append(is_fine)
    return 0 if all(results) else 1


def _bench(args: argparse.Namespace) -> int:
    from kwsd.bench import bench

    for line in bench(args.model, args.device or "auto"):
        print(line, flush=True)
    return 0


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _since(text: str) -> "Since":
    from kwsd.requests import Since

    boot_id, _, seq = text.rpartition(":")
    if not boot_id or not seq.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not BOOT_ID:SEQ, of an event that you had")
    return Since(boot_id, int(seq))


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise SocketError(f"{path}: {error.strerror}; it must hold the daemon's token") from None
    except ValueError:
        raise SocketError(f"{path}: not text; it must hold the daemon's token") from None


def _trust(path: Path) -> "ssl.SSLContext":
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise SocketError(f"{path}: not a certificate in PEM ({error.strerror or error})") from None


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a time limit in seconds")
    return seconds


def _config(args: argparse.Namespace) -> Config:
    names = ("source", "audio", "model", "device", "socket", "threshold", "pace")
    return load_config(args.config, {name: getattr(args, name) for name in names})


class _Once(argparse.Action):
    """The last one would win, and what the others say be lost without a word."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *given: Any) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{self.option_strings[0]}: can be given once; put what both say into one file")
        setattr(namespace, self.dest, given[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kwsd", description="Listens, and tells other programs which keyword was said."
    )
    parser.add_argument("--version", action="version", version=f"kwsd {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", type=Path, metavar="FILE", help="ONNX model with its card (the bundled one)")
    model.add_argument("--device", choices=DEVICES, help="what runs the model (auto)")
    threshold = argparse.ArgumentParser(add_help=False)
    threshold.add_argument("--threshold", type=float, metavar="T", help="one threshold for all labels, up to 1")
    socket = argparse.ArgumentParser(add_help=False)
    socket.add_argument("--socket", type=Path, metavar="PATH", help="Unix socket of the events")
    settings = argparse.ArgumentParser(add_help=False, parents=[model, threshold, socket])
    settings.add_argument("--config", type=Path, action=_Once, metavar="FILE", help="YAML file; options override it")
    settings.add_argument(
        "--source", help="microphone, microphone:NAME-OR-NUMBER, a WAV file, - for raw PCM on stdin, or network"
    )
    settings.add_argument("--audio", metavar="PATH", help="socket on which other programs send raw PCM")
    settings.add_argument(
        "--fast", dest="pace", action="store_const", const="fast", help="hear a WAV file as fast as possible"
    )

    def add(name: str, function: object, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help, parents=parents)
        command.set_defaults(function=function)
        return command

    add("run", _run, "the daemon: listen, and serve events", settings)
    command = add("listen", _listen, "print the events of a running daemon")
    command.add_argument("--socket", metavar="PATH", help="of the daemon's events, or HOST:PORT")
    command.add_argument(
        "--token-file", type=Path, metavar="FILE", help="holds what a daemon on HOST:PORT wants to see"
    )
    command.add_argument("--tls-ca", type=Path, metavar="FILE", help="speak TLS with the daemon of this certificate")
    command.add_argument("--json", action="store_true", help="as they come, one JSON object a line")
    command.add_argument("--labels", type=_names, metavar="A,B", help="only detections of these")
    command.add_argument("--streams", type=_names, metavar="A,B", help="only events of these streams")
    command.add_argument("--scores", action="store_true", help="the running scores too")
    command.add_argument("--exec", metavar="COMMAND", help="run for each detection: KWSD_LABEL…, and its JSON as input")
    command.add_argument("--exec-seconds", type=_seconds, default=10, metavar="N", help="and end it then (%(default)s)")
    command.add_argument("--since", type=_since, metavar="BOOT_ID:SEQ", help="first what happened after this event")
    command.add_argument("--once", action="store_true", help="end with the daemon; otherwise come back when it does")
    command = add("spot", _spot, "print what is heard in recordings", model, threshold)
    command.add_argument("files", type=Path, nargs="+", metavar="FILE")
    command.add_argument(
        "--config", type=Path, action=_Once, metavar="FILE", help="YAML file, for its thresholds and model"
    )
    command.add_argument("--json", action="store_true", help="one event a line")
    command = add("calibrate", _calibrate, "choose thresholds for a budget of false accepts", model)
    command.add_argument("files", type=Path, nargs="+", metavar="RECORDING", help="of your room, with no keyword said")
    command.add_argument(
        "--false-accepts-per-hour", type=float, required=True, metavar="N", help="of all keywords together"
    )
    command.add_argument("-o", dest="output", type=Path, metavar="FILE", help="write them for `kwsd run --config`")
    command = add("label", _label, "label a folder of clips, as Kaggle wants it", model)
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("-o", dest="output", type=Path, required=True, metavar="CSV", help="gets fname,label")
    command.add_argument("--scores", type=Path, metavar="CSV", help="also write all posteriors")
    command.add_argument("--augment", action="store_true", help="average over small shifts and gains (slower)")
    add("devices", _devices, "list the microphones")
    add("check", _check, "would `kwsd run` work here?", settings)
    add("bench", _bench, "what does it cost on this machine? (a minute)", model)
    return parser
