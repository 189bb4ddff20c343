"""Containers: at which byte a recording ends, according to its header.

libsndfile shortens a truncated file silently, and finds no audio in a file whose sizes are missing.
A writer into a pipe cannot seek back: it leaves 0, or a size near the type's maximum. Then the audio
reaches to the end of the file.

Sources: the formats' specifications; `ds64` from EBU Tech 3306; pages from RFC 3533.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

_MOST_CHUNKS = 10_000  # looked at; a damaged file may have millions
_NEAR = 2**24  # writers into a pipe leave the largest size of the type, give or take 16 MiB
_LAST_BYTES = 2**17  # of an Ogg file: longer than a page


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a recording reaches.

    Attributes:
        end: the size of the whole file in bytes; None if the header does not say it, and infinity if
            the file's last part is missing and of unknown size.
        missing: sizes that the header lacks: their place in the file, and what belongs there.
    """

    end: float | None = None
    missing: dict[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Size:
    """A size in a header: its place, its value, and how it is written."""

    at: int
    n_bytes: int
    format: str

    def is_known(self, begin: int, n_on_disk: int) -> bool:
        """Whether it can be the size of what begins at `begin`."""
        bits = 8 * struct.calcsize(self.format)
        is_largest = any(abs(self.n_bytes - 2**n) <= _NEAR for n in (bits - 1, bits))
        return self.n_bytes > 0 and not (is_largest and begin + self.n_bytes > n_on_disk)

    def filled(self, n_bytes: int) -> dict[int, bytes]:
        largest = 2 ** (8 * struct.calcsize(self.format)) - 2
        return {self.at: struct.pack(self.format, min(n_bytes, largest))}


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a container is made of chunks.

    Attributes:
        form: place and format of the size of everything, and the bytes that it does not count.
        first: place of the first chunk.
        n_id: bytes of a chunk's name.
        size: format of a chunk's size.
        counts_header: whether a chunk's size counts its name and itself.
        align: chunks begin at a multiple of this.
        data: names of the chunk that has the audio.
    """

    form: tuple[int, str, int] | None
    first: int
    size: str
    n_id: int = 4
    counts_header: bool = False
    align: int = 2
    data: tuple[bytes, ...] = (b"data",)

    @property
    def n_header(self) -> int:
        return self.n_id + struct.calcsize(self.size)


_LAYOUTS = {
    b"RIFF": _Layout(form=(4, "<I", 8), first=12, size="<I"),
    b"RIFX": _Layout(form=(4, ">I", 8), first=12, size=">I"),
    b"RF64": _Layout(form=(20, "<Q", 8), first=12, size="<I"),
    b"FORM": _Layout(form=(4, ">I", 8), first=12, size=">I", data=(b"SSND", b"BODY")),
    b"riff": _Layout(form=(16, "<Q", 0), first=40, size="<Q", n_id=16, counts_header=True, align=8),
    b"caff": _Layout(form=None, first=8, size=">Q", align=1),
}


def extent(file: BinaryIO, n_on_disk: int) -> Extent:
    """Where a recording ends by its header.

    Raises:
        struct.error: the file ends inside its header.
    """
    kind = _read(file, 0, 4)
    if layout := _LAYOUTS.get(kind):
        return _of_chunks(file, layout, n_on_disk)
    if kind in (b".snd", b"dns."):
        order = ">" if kind == b".snd" else "<"
        [begin] = struct.unpack(f"{order}I", _read(file, 4, 4))
        return _of_data(_size(file, 8, f"{order}I"), begin, n_on_disk)
    if kind == b"NIST":
        return Extent(_end_of_nist(file))
    if kind == b"OggS":
        return Extent(_end_of_ogg(file, n_on_disk))
    return Extent(_end_of_mp3(file))


def _ends_by_form(form: "_Size | None", layout: _Layout, n_on_disk: int) -> list[float]:
    """Where the outermost chunk says that it ends, if it says so. Some writers count the header, too."""
    if not form or not layout.form or not form.is_known(0, n_on_disk) or form.n_bytes == n_on_disk:
        return []
    return [form.n_bytes + layout.form[2] - (layout.align - 1)]  # the last padding may be missing


def _of_chunks(file: BinaryIO, layout: _Layout, n_on_disk: int) -> Extent:
    form = _size(file, *layout.form[:2]) if layout.form else None
    ends = _ends_by_form(form, layout, n_on_disk)
    missing: dict[int, bytes] = {}
    for name, size, begin in _chunks(file, layout, n_on_disk):
        if not name.startswith(layout.data):
            ends += [begin + size.n_bytes] if size.n_bytes and begin + size.n_bytes > n_on_disk else []
            continue
        if size.n_bytes == 2**32 - 1 and layout is _LAYOUTS[b"RF64"]:
            size = _size(file, 28, "<Q")
        n_counted = layout.n_header if layout.counts_header else 0
        body = _Size(size.at, size.n_bytes - n_counted, size.format)
        of_data = _of_data(body, begin, n_on_disk)
        ends += [of_data.end] if of_data.end else []
        if of_data.missing and not _is_followed_by_chunks(file, layout, begin, n_on_disk):
            missing = size.filled(n_on_disk - begin + n_counted)
            if form and layout.form:
                missing |= form.filled(n_on_disk - layout.form[2])
        break
    return Extent(max(ends, default=None), missing)


def _of_data(size: _Size, begin: int, n_on_disk: int) -> Extent:
    if size.is_known(begin, n_on_disk):
        return Extent(begin + size.n_bytes)
    return Extent(None, size.filled(n_on_disk - begin))


def _chunks(file: BinaryIO, layout: _Layout, n_on_disk: int) -> Iterator[tuple[bytes, _Size, int]]:
    """The name, size and beginning of each chunk."""
    at = layout.first
    for _ in range(_MOST_CHUNKS):
        if at + layout.n_header > n_on_disk:
            return
        name, size = _read(file, at, layout.n_id), _size(file, at + layout.n_id, layout.size)
        yield name, size, at + layout.n_header
        n_bytes = size.n_bytes if layout.counts_header else size.n_bytes + layout.n_header
        at += max(n_bytes + -n_bytes % layout.align, layout.n_header)


def _is_followed_by_chunks(file: BinaryIO, layout: _Layout, begin: int, n_on_disk: int) -> bool:
    """Whether other chunks fill the file from `begin` on: then there is no audio."""
    at = begin
    for _ in range(_MOST_CHUNKS):
        if at + layout.n_header > n_on_disk or not re.fullmatch(rb"[A-Za-z0-9 ]{4}", _read(file, at, 4)):
            break
        n_bytes = _size(file, at + layout.n_id, layout.size).n_bytes + layout.n_header
        at += n_bytes + n_bytes % 2
    return begin < at and at >= n_on_disk - 1


def _end_of_nist(file: BinaryIO) -> int | None:
    begin = re.match(rb"NIST_1A\n\s*(\d{1,6})\n", _read(file, 0, 32))
    if begin is None:
        return None
    header = _read(file, 0, int(begin[1]))
    fields = {name: int(value) for name, value in re.findall(rb"^(\w+) -\w+ (\d{1,18})\s*$", header, re.MULTILINE)}
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if not all(name in fields for name in names):
        return None
    return int(begin[1]) + math.prod(fields[name] for name in names)


def _end_of_ogg(file: BinaryIO, n_on_disk: int) -> float:
    """The last page must be whole, and marked as the last."""
    begin = max(0, n_on_disk - _LAST_BYTES)
    last = _read(file, begin, n_on_disk - begin)
    at = last.rfind(b"OggS")
    if at < 0 or at + 27 > len(last):
        return math.inf
    n_segments = last[at + 26]
    lengths = last[at + 27 : at + 27 + n_segments]
    end = begin + at + 27 + n_segments + sum(lengths)
    is_last = last[at + 5] & 4
    return end if is_last or end > n_on_disk else math.inf


def _end_of_mp3(file: BinaryIO) -> int | None:
    """The size that many encoders write into a first silent frame, in bytes from that frame on."""
    tag = _read(file, 0, 10)
    begin = 10 + sum(byte << 7 * n for n, byte in enumerate(reversed(tag[6:]))) if tag[:3] == b"ID3" else 0
    frame = _read(file, begin, 64)
    for at in (13, 21, 36):  # behind the side information: mono or stereo, MPEG 1 or 2
        if frame[at : at + 4] in (b"Xing", b"Info"):
            flags, _, n_bytes = struct.unpack(">3I", frame[at + 4 : at + 16])
            return begin + n_bytes if flags & 3 == 3 else None
    return None


def _size(file: BinaryIO, at: int, form: str) -> _Size:
    [n_bytes] = struct.unpack(form, _read(file, at, struct.calcsize(form)))
    return _Size(at, n_bytes, form)


def _read(file: BinaryIO, at: int, n_bytes: int) -> bytes:
    file.seek(at)
    return file.read(n_bytes)
