"""The pack: what a new word must not be confused with, as spans of the trunk (speech, other words, noise).

It ships with the model, and is made by `python -m train pack` from recordings. One half, of some
speakers, trains; the other half, of others, measures. A file holds the spans as bytes: values of a
channel from 0 to its largest. The law of a pack: it fits one trunk.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from kwsd.audio import FloatArray
from kwsd.core.model import DEFAULT_MODEL
from kwsd.core.rows import IntArray
from kwsd.errors import LearnError
from kwsd.files import whole
from kwsd.learn.graft import N_SPANS
from kwsd.learn.trunk import Trunk

DEFAULT_PACK = DEFAULT_MODEL.with_suffix(".pack.npz")
SPEECH, NOISE, OTHER = "speech", "noise", "other"
"""Names of what is no single word."""

_BLOCK_WINDOWS = 8192
_ADVICE = "make one for this model with `python -m train pack`"


@dataclass(frozen=True, slots=True)
class Part:
    """A half of a pack. Windows are made of spans when they are needed: all at once would fill the memory.

    Attributes:
        spans: shape (n_spans, n_channels), uint8.
        kinds: of each span, an index into the names.
        largest: of each channel, shape (n_channels,): what 255 stands for.
    """

    spans: NDArray[np.uint8]
    kinds: NDArray[np.uint8]
    largest: FloatArray

    def __len__(self) -> int:
        return len(self.spans)

    @property
    def n_windows(self) -> int:
        return max(0, len(self) - N_SPANS + 1)

    def windows(self, at: IntArray) -> FloatArray:
        """The windows that begin at some spans. Shape: (n,) -> (n, N_SPANS * n_channels)."""
        spans = self.spans[at[:, None] + np.arange(N_SPANS)] * (self.largest / np.float32(255))
        windows: FloatArray = spans.reshape(len(at), -1)
        return windows

    def blocks(self) -> Iterator[FloatArray]:
        """All windows, some thousands at a time."""
        for at in range(0, self.n_windows, _BLOCK_WINDOWS):
            yield self.windows(np.arange(at, min(at + _BLOCK_WINDOWS, self.n_windows)))

    def has(self, kind: int) -> NDArray[np.bool_]:
        """For each window, whether a span of a kind is in it."""
        is_kind = sliding_window_view(self.kinds == kind, N_SPANS)
        return np.asarray(is_kind.any(axis=1))


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack.

    Attributes:
        names: of what is said: speech, noise, or a word.
        training, measuring: its halves.
        digest: of the trunk that it fits.
        attribution: of the recordings.
    """

    names: list[str]
    training: Part
    measuring: Part
    digest: str
    attribution: str

    def save(self, path: Path) -> None:
        """Write the file."""
        with whole(path) as part:
            np.savez_compressed(
                part,
                names=np.array(self.names),
                largest=self.training.largest,
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
    largest = largest.astype(np.float32)
    first, second = (Part(np.rint(spans / largest * 255).astype(np.uint8), kinds, largest) for spans, kinds in halves)
    return Pack(names, first, second, digest, attribution)


def load_pack(path: Path, trunk: Trunk) -> Pack:
    """Read a pack.

    Raises:
        LearnError: it is missing or damaged, or fits another trunk.
    """
    try:
        with np.load(path) as file:
            n, largest = int(file["n_training"]), file["largest"]
            spans, kinds = file["spans"], file["kinds"]
            pack = Pack(
                [str(name) for name in file["names"]],
                Part(spans[:n], kinds[:n], largest),
                Part(spans[n:], kinds[n:], largest),
                str(file["digest"]),
                str(file["attribution"]),
            )
    except FileNotFoundError:
        raise LearnError(f"{path}: no such pack; {_ADVICE}") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error):
        raise LearnError(f"{path}: not a pack, or damaged; {_ADVICE}") from None
    if pack.digest != trunk.digest:
        raise LearnError(f"{path}: fits another network than this model's; {_ADVICE}")
    return pack
