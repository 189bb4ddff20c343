"""Run a command under the part of a systemd unit's sandbox that works without systemd.

    python tests/systemd/sandbox.py systemd/kwsd.service COMMAND…

Applied, as systemd 252 does: `SystemCallFilter` with `SystemCallErrorNumber`, `MemoryDenyWriteExecute`
and `RestrictAddressFamilies` (all three are seccomp filters), `NoNewPrivileges`, and
`CapabilityBoundingSet`. Not applied: settings that need mounts, cgroups or another user.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQ, _MASKED_EQ = 4, 7
_ALL_FAMILIES = 64
_NO_NEW_PRIVILEGES, _DROP_CAPABILITY = 38, 24
_EXEC, _WRITE, _SHM_EXEC = 4, 2, 0o100000


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def settings(unit: Path) -> dict[str, list[str]]:
    """Read all values of each key."""
    found = defaultdict(list)
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def system_calls(filters: list[str]) -> set[str]:
    """Return the system calls that the lines of `SystemCallFilter` allow."""
    allowed: set[str] = set()
    for line in filters:
        names = {name for entry in line.removeprefix("~").split() for name in _expand(entry)}
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _expand(entry: str) -> set[str]:
    if not entry.startswith("@"):
        return {entry}
    listing = subprocess.run(["systemd-analyze", "syscall-filter", entry], capture_output=True, text=True, check=True)
    entries = [line.strip() for line in listing.stdout.splitlines()[1:] if not line.strip().startswith("#")]
    return {name for one in entries if one for name in _expand(one)}


class Filter:
    """A seccomp filter: add its rules, then load it."""

    def __init__(self, otherwise: int) -> None:
        self._lib = ctypes.CDLL("libseccomp.so.2")
        self._lib.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._lib.seccomp_init(ctypes.c_uint32(otherwise)))

    def add(self, action: int, name: str, *compares: tuple[int, int, int, int]) -> None:
        number = self._lib.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return  # a call of another architecture
        array = (_Compare * len(compares))(*compares)
        add = self._lib.seccomp_rule_add_array
        if status := add(self._context, ctypes.c_uint32(action), number, len(compares), array):
            raise OSError(-status, name)

    def load(self) -> None:
        if status := self._lib.seccomp_load(self._context):
            raise OSError(-status, "seccomp_load")


def confine(found: dict[str, list[str]]) -> None:
    """Apply the settings to this process. They cannot be undone."""
    libc = ctypes.CDLL(None, use_errno=True)
    refuse = _ERRNO | getattr(errno, found["SystemCallErrorNumber"][-1])
    allowed = system_calls(found["SystemCallFilter"])
    if found["CapabilityBoundingSet"] == [""] and os.geteuid() == 0:
        for capability in range(64):
            libc.prctl(_DROP_CAPABILITY, capability, 0, 0, 0)
    if found["NoNewPrivileges"] == ["yes"] and libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    filters = []
    if found["MemoryDenyWriteExecute"] == ["yes"]:
        denied = Filter(_ALLOW)
        denied.add(_ERRNO | errno.EPERM, "mmap", (2, _MASKED_EQ, _EXEC | _WRITE, _EXEC | _WRITE))
        for name in ("mprotect", "pkey_mprotect"):
            denied.add(_ERRNO | errno.EPERM, name, (2, _MASKED_EQ, _EXEC, _EXEC))
        denied.add(_ERRNO | errno.EPERM, "shmat", (2, _MASKED_EQ, _SHM_EXEC, _SHM_EXEC))
        filters.append(denied)
    families = [getattr(socket, name) for name in " ".join(found["RestrictAddressFamilies"]).split()]
    denied = Filter(_ALLOW)
    for family in set(range(_ALL_FAMILIES)) - set(families):
        denied.add(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _EQ, family, 0))
    filters.append(denied)
    calls = Filter(refuse)
    for name in sorted(allowed):
        calls.add(_ALLOW, name)
    filters.append(calls)
    for one in filters:
        one.load()


if __name__ == "__main__":
    confine(settings(Path(sys.argv[1])))
    os.execv(sys.argv[2], sys.argv[2:])
