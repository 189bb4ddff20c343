"""Types and actions for the options of the command line."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kwsd.protocol.subscription import Since


def names(text: str) -> list[str]:
    """Names, separated by commas."""
    return [name for name in text.split(",") if name]


def since(text: str) -> "Since":
    """`BOOT_ID:SEQ` of an event."""
    from kwsd.protocol.subscription import Since

    boot_id, _, seq = text.rpartition(":")
    if not boot_id or not seq.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not BOOT_ID:SEQ of an event")
    return Since(boot_id, int(seq))


def seconds(text: str) -> float:
    """A time limit."""
    if not text.replace(".", "", 1).isdecimal() or not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time limit in seconds")
    return float(text)


class Once(argparse.Action):
    """An option that may be given once. By default the last one would win silently."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *given: Any) -> None:
        if getattr(namespace, self.dest) is not None:
            parser.error(f"{self.option_strings[0]}: can be given only once; combine the files")
        setattr(namespace, self.dest, given[0])
