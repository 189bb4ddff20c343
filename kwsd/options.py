"""The options of the command line: their types and actions, and the files that they name."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kwsd.errors import SocketError

if TYPE_CHECKING:
    import ssl

    from kwsd.protocol.subscription import Since


THRESHOLD: dict[str, Any] = {"type": float, "metavar": "T", "help": "one threshold for all keywords, up to 1"}


def names(text: str) -> list[str]:
    """Names, separated by commas."""
    return [name for name in text.split(",") if name]


def since(text: str) -> "Since":
    """`BOOT_ID:SEQ` of an event."""
    from kwsd.protocol.subscription import Since

    try:
        return Since.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A time limit."""
    if not text.replace(".", "", 1).isdecimal() or not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time limit in seconds")
    return float(text)


def model_options() -> argparse.ArgumentParser:
    """The options of every command that runs a model."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--model", type=Path, metavar="FILE", help="ONNX model with its card (the bundled one)")
    options.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what runs the model (auto)")
    return options


def run_options() -> argparse.ArgumentParser:
    """The options of run and check, which replace keys of the configuration."""
    options = argparse.ArgumentParser(add_help=False, parents=[model_options()])
    options.add_argument("--threshold", **THRESHOLD)
    options.add_argument("--socket", type=Path, metavar="PATH", help="Unix socket of the events")
    options.add_argument("--config", type=Path, action=Once, metavar="FILE", help="YAML file; options override it")
    options.add_argument(
        "--source", help="microphone, microphone:NAME-OR-NUMBER, a WAV file, - for raw PCM on stdin, or network"
    )
    options.add_argument("--audio", metavar="PATH", help="socket on which other programs send raw PCM")
    options.add_argument(
        "--fast", dest="pace", action="store_const", const="fast", help="read a WAV file as fast as possible"
    )
    return options


def add_learn_options(command: argparse.ArgumentParser) -> None:
    """The options of `kwsd learn`."""
    command.add_argument("items", nargs="*", metavar="WORD RECORDING…", help="words, each with its recordings")
    command.add_argument("-o", dest="output", type=Path, required=True, metavar="FILE", help="receives the model")
    command.add_argument("--model", type=Path, metavar="FILE", help="model to add the word to (the bundled one)")
    command.add_argument("--pack", type=Path, metavar="FILE", help="made by `python -m train pack` for that model")
    command.add_argument(
        "--false-accepts-per-hour", type=float, default=0.5, metavar="N", help="budget for each word (%(default)s)"
    )
    command.add_argument("--only", action="store_true", help="leave out the model's own keywords")
    command.add_argument("--record", type=int, metavar="N", help="record N takes of each word")
    command.add_argument("--from", dest="clips", type=Path, metavar="DIR", help="kept clips, marked by `kwsd mark`")
    command.add_argument("--source", default="microphone", help="what --record records (%(default)s)")
    command.add_argument("--synthesise", action="store_true", help="let a speech synthesiser speak the word, too")
    command.add_argument(
        "--voices", type=Path, metavar="DIR", help="voices of kokoro-onnx or piper for it (~/.local/share/kwsd/voices)"
    )
    command.add_argument("--forget", type=names, metavar="A,B", help="remove learnt words from --model instead")


def add_label_options(command: argparse.ArgumentParser) -> None:
    """The options of `kwsd label`."""
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="folder; or recordings, tar files, Parquet, or text files of paths: paths, patterns, or addresses (s3://…)",
    )
    command.add_argument(
        "-o", dest="output", type=Path, required=True, metavar="FILE", help="receives fname,label; or X.parquet"
    )
    command.add_argument("--column", default="", metavar="NAME", help="of Parquet: recordings, or their paths")
    command.add_argument(
        "--ray", metavar="ADDRESS", help="run on a Ray cluster: HOST:PORT, or local for one on this machine"
    )
    command.add_argument("--scores", type=Path, metavar="CSV", help="receives all posteriors")
    command.add_argument("--augment", action="store_true", help="average over small shifts and gains (slower)")
    command.add_argument(
        "--spot", action="store_true", help="find all keywords in recordings of any length, with their times"
    )


def add_listen_options(command: argparse.ArgumentParser) -> None:
    """The options of `kwsd listen`."""
    command.add_argument(
        "--socket",
        action="append",
        metavar="PATH",
        help="the daemon's socket, or HOST:PORT; may be repeated for several",
    )
    command.add_argument("--token-file", type=Path, metavar="FILE", help="holds the token of a daemon on HOST:PORT")
    command.add_argument("--tls-ca", type=Path, metavar="FILE", help="use TLS, and trust this certificate")
    command.add_argument("--json", action="store_true", help="print JSON, one event a line")
    command.add_argument("--labels", type=names, metavar="A,B", help="only detections of these keywords")
    command.add_argument("--streams", type=names, metavar="A,B", help="only events of these streams")
    command.add_argument("--scores", action="store_true", help="also print the running scores")
    command.add_argument("--near-misses", action="store_true", help="also print what came close to a threshold")
    command.add_argument(
        "--exec", metavar="COMMAND", help="run for each detection, with KWSD_LABEL… set and its JSON as input"
    )
    command.add_argument(
        "--exec-seconds", type=seconds, default=10, metavar="N", help="time limit of the command (%(default)s)"
    )
    command.add_argument(
        "--since", type=since, action="append", default=[], metavar="BOOT_ID:SEQ",
        help="first print the events after this one; once for each daemon",
    )  # fmt: skip
    command.add_argument("--once", action="store_true", help="end with the daemon, and do not reconnect")


class Once(argparse.Action):
    """An option that may be given once. By default the last one would win silently."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *given: Any) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{self.option_strings[0]}: can be given only once; combine the files")
        setattr(namespace, self.dest, given[0])


def token_in(path: Path) -> str:
    """The token in a file.

    Raises:
        SocketError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise SocketError(f"{path}: {reason}; it must hold the daemon's token") from None


def trust_in(path: Path) -> "ssl.SSLContext":
    """TLS that trusts the certificate in a file.

    Raises:
        SocketError: it is none.
    """
    import ssl

    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise SocketError(f"{path}: not a certificate in PEM ({error.strerror or error})") from None
