"""The header of a stream on the audio socket: one line of JSON that describes the audio after it."""

from dataclasses import dataclass
from typing import Annotated

from kwsd.audio import PcmFormat
from kwsd.config import RESERVED
from kwsd.typed import Matching, build, parse_json

_EXAMPLE = '{"stream":"hall","rate_hz":16000}'


@dataclass(frozen=True, kw_only=True)
class Header(PcmFormat):
    """The first line of a connection.

    Attributes:
        stream: its name in events.
        live: whether time goes on without kwsd. Audio of a live stream that cannot be processed in
            time is lost, and reported by `overrun`. Otherwise the sender has to wait.
    """

    stream: Annotated[str, Matching(r"(?s).{1,100}", "a name of up to 100 characters")]
    live: bool = True

    @classmethod
    def parse(cls, line: bytes) -> "Header":
        """Read a header line.

        Raises:
            ValueError: with every problem, in one line.
        """
        return build(cls, parse_json(line, f"the first line must be JSON, such as {_EXAMPLE}"))

    def problems(self) -> list[str]:
        found = [] if self.stream.isprintable() else ["stream: has characters that cannot be printed"]
        if self.stream.startswith(RESERVED):
            found.append(f"stream: names that begin with {RESERVED} are kept for Wyoming's clients")
        return found
