"""The README's "As a service", to the letter, on a fresh Debian under its own systemd; then the service is broken.

    sudo python tests/service/trial.py DEBIAN [OPTION OF systemd-nspawn …]

DEBIAN is a folder that gets a minimal Debian (400 MB) the first time. A copy in memory is booted as
a container, with a monitor of PulseAudio as microphone, and `guest.py` does in it what
a new user does, and what happens to a service in the long run; each check is a line.
Exits with 0 if all hold. It takes four minutes, and needs root, debootstrap and systemd-nspawn
(Debian: `apt-get install debootstrap systemd-container`) and a Debian mirror. More options
are systemd-nspawn's, such as `--bind-ro=/etc/pip.conf` where packages come from elsewhere.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
PACKAGES = "systemd,systemd-sysv,libnss-systemd,sudo,python3,openssl,ca-certificates,curl"
CGROUPS = Path("/sys/fs/cgroup")

# Ends the container with the trial's own exit status.
UNIT = """[Unit]
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -u /srv/kwsd/tests/service/guest.py
StandardOutput=tty
StandardError=tty
"""


def main() -> int:
    """The command. Returns the exit status of what runs inside."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    missing = [tool for tool in ("debootstrap", "systemd-nspawn") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        print(f"trial: needs root, and {' and '.join(missing) or 'nothing more'}", file=sys.stderr)
        return 2
    debian = Path(sys.argv[1])
    if not debian.exists():
        _make(debian)
    return _boot(debian, sys.argv[2:])


def _make(debian: Path) -> None:
    """A Debian that knows its own name, and whose apt-get asks nothing."""
    unfinished = debian.with_name(debian.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, unfinished]
    subprocess.run(command, check=True)
    (unfinished / "etc/hostname").write_text("guest\n")
    (unfinished / "etc/hosts").write_text("127.0.0.1 localhost guest\n")
    (unfinished / "etc/apt/apt.conf.d/assume-yes").write_text('APT::Get::Assume-Yes "true";\n')
    unfinished.rename(debian)


def _boot(debian: Path, options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "trial.service"
        unit.write_text(UNIT)
        command = ["systemd-nspawn", "--quiet", "-D", debian, "--volatile=overlay", "--console=read-only"]
        command += ["--capability=CAP_BPF", "--system-call-filter=bpf"]  # systemd's firewall and devices for a unit
        command += [f"--bind-ro={unit}:/etc/systemd/system/trial.service", f"--overlay={ROOT}::/srv/kwsd", *options]
        if not Path("/run/systemd/system").exists():  # nobody here who would give the container its place
            _take_a_place()
            command += ["--register=no", "--keep-unit"]
        command += ["--boot", "--", "--unit=trial.service", "--show-status=no", "--log-level=warning"]
        return subprocess.run(command, env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}).returncode


def _take_a_place() -> None:
    """Go into a control group, which the container is below."""
    for hierarchy in (CGROUPS, CGROUPS / "unified", CGROUPS / "systemd"):
        if (hierarchy / "cgroup.procs").exists():
            place = hierarchy / "kwsd-trial.service"
            place.mkdir(exist_ok=True)
            (place / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    sys.exit(main())
