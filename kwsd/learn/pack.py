"""The pack: what a new word must not be confused with, as spans of the trunk (speech, other words, noise).

It ships with the model, and is made by `python -m train pack` from recordings. One half, of some
speakers, trains; the other half, of others, measures. A file holds the spans as bytes: values of a
channel from 0 to its largest. The law of a pack: it fits one trunk.
"""

from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.core.model import DEFAULT_MODEL
from kwsd.errors import LearnError
from kwsd.files import whole
from kwsd.learn.graft import SPAN_STEPS
from kwsd.learn.trunk import Trunk, windows_of

DEFAULT_PACK = DEFAULT_MODEL.with_suffix(".pack.npz")
SPEECH, NOISE = "speech", "noise"
_ADVICE = "make one for this model with `python -m train pack`"


@dataclass(frozen=True, slots=True)
class Part:
    """A half of a pack.

    Attributes:
        spans: shape (n_spans, n_channels), uint8.
        kinds: of each span, an index into `names`.
    """

    spans: NDArray[np.uint8]
    kinds: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.spans)


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack.

    Attributes:
        names: of what is said: speech, noise, or a word.
        largest: of each channel, shape (n_channels,).
        training, measuring: its halves.
        digest: of the trunk that it fits.
        attribution: of the recordings.
    """

    names: list[str]
    largest: FloatArray
    training: Part
    measuring: Part
    digest: str
    attribution: str

    def windows(self, part: Part) -> FloatArray:
        """All windows of a half. Shape: -> (n_windows, N_SPANS * n_channels)."""
        return windows_of(part.spans * (self.largest / np.float32(255)))

    def hours(self, part: Part, trunk: Trunk) -> float:
        """How long a half lasts."""
        frontend = trunk.frontend
        return len(part) * SPAN_STEPS * 2 * frontend.hop_samples / frontend.sample_rate_hz / 3600

    def save(self, path: Path) -> None:
        """Write the file."""
        with whole(path) as part:
            np.savez_compressed(
                part,
                names=np.array(self.names),
                largest=self.largest,
                spans=np.concatenate([self.training.spans, self.measuring.spans]),
                kinds=np.concatenate([self.training.kinds, self.measuring.kinds]),
                n_training=np.array(len(self.training)),
                digest=np.array(self.digest),
                attribution=np.array(self.attribution),
            )


def pack_of(
    names: list[str], halves: list[tuple[FloatArray, NDArray[np.uint8]]], digest: str, attribution: str
) -> Pack:
    """Make a pack of the training and the measuring half: spans and their kinds."""
    largest = np.maximum(np.max([spans.max(axis=0) for spans, _ in halves], axis=0), 1e-6)
    first, second = (Part(np.rint(spans / largest * 255).astype(np.uint8), kinds) for spans, kinds in halves)
    return Pack(names, largest.astype(np.float32), first, second, digest, attribution)


def load_pack(path: Path, trunk: Trunk) -> Pack:
    """Read a pack.

    Raises:
        LearnError: it is missing or damaged, or fits another trunk.
    """
    try:
        with np.load(path) as file:
            n = int(file["n_training"])
            spans, kinds = file["spans"], file["kinds"]
            pack = Pack(
                [str(name) for name in file["names"]],
                file["largest"],
                Part(spans[:n], kinds[:n]),
                Part(spans[n:], kinds[n:]),
                str(file["digest"]),
                str(file["attribution"]),
            )
    except FileNotFoundError:
        raise LearnError(f"{path}: no such pack; {_ADVICE}") from None
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise LearnError(f"{path}: not a pack ({error}); {_ADVICE}") from None
    if pack.digest != trunk.digest:
        raise LearnError(f"{path}: fits another network than this model's; {_ADVICE}")
    return pack
