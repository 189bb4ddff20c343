"""Downloads, checks and unpacks the Speech Commands recordings. An interrupted download resumes.

Source: P. Warden, "Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition",
2018 (CC BY 4.0). The checksums are those that torchaudio pins.
"""

import hashlib
import tarfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from kwsd.errors import TrainingError

_TRIES = 5
_TIMEOUT_SECONDS = 60
_BLOCK_BYTES = 1 << 20


class Archive(NamedTuple):
    """The address of an archive, and its checksum."""

    url: str
    sha256: str


ARCHIVES = {
    "v0.01": Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.01.tar.gz",
        "743935421bb51cccdb6bdd152e04c5c70274e935c82119ad7faeec31780d811d",
    ),
    "v0.02": Archive(
        "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",
        "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
    ),
}


def fetch(folder: Path, archive: Archive) -> None:
    """Download the recordings of an archive into a folder, unless they are already there.

    Raises:
        TrainingError: the download failed, or its checksum is wrong.
    """
    marker = folder / f".fetched-{archive.sha256[:12]}"
    if marker.exists():
        print(f"{folder}: already complete")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be created ({error.strerror})") from None
    packed = folder / f"{archive.sha256[:12]}.tar.gz"
    if not packed.exists():
        part = packed.with_name(packed.name + ".part")
        _download(archive.url, part)
        _verify(part, archive)
        part.rename(packed)
    _unpack(packed, folder)
    marker.touch()
    packed.unlink()
    print(f"{folder}: {sum(1 for _ in folder.glob('[!_.]*/*.wav'))} clips")


def _download(url: str, part: Path) -> None:
    for tries_left in reversed(range(_TRIES)):
        try:
            if _continue(url, part):
                return
            reason = "the connection ended early"
        except (OSError, HTTPException) as error:
            reason = str(getattr(error, "reason", error))
            if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                break  # a retry would not help
        if not tries_left:
            break
    raise TrainingError(f"{url}: cannot be downloaded ({reason}); the same command continues where it stopped")


def _continue(url: str, part: Path) -> bool:
    """Download the missing part of a file. Returns whether the file is complete."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the server has no more bytes
            return True
        raise
    with response:
        if response.status != 206:  # the server starts from the beginning
            have = 0
        total = have + int(response.headers.get("Content-Length", 0))
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total or None, initial=have, unit="B", unit_scale=True, desc=part.name) as bar,
        ):
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                bar.update(len(block))
            return total in (0, file.tell())


def _verify(part: Path, archive: Archive) -> None:
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != archive.sha256:
        part.unlink()
        raise TrainingError(
            f"{archive.url}: the download has checksum {found[:12]}…, expected {archive.sha256[:12]}…; "
            "it was removed; fetch it again"
        )


def _unpack(packed: Path, folder: Path) -> None:
    try:
        with tarfile.open(packed) as tar, tqdm(tar, desc="unpacking", unit=" files") as members:
            # Python before 3.11.4 has no filters; the archive's checksum has already been verified.
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            for member in members:
                tar.extract(member, folder)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise TrainingError(f"{packed}: cannot be unpacked into {folder} ({error})") from None
