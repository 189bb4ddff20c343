"""The README's "As a service", to the letter, on a fresh Debian under its own systemd; then the service is broken.

    sudo python tests/service/trial.py FOLDER [OPTION OF systemd-nspawn …]

FOLDER gets a minimal Debian (600 MB), which is used again the next time. It is booted as a
container, with a null sink's monitor of PulseAudio as microphone, and `guest.py` does in it
what a new user does, and what happens to a service in the long run; each check is a line.
Exits with 0 if all hold. It takes five minutes, and needs root, git, debootstrap and systemd-nspawn
(Debian: `apt-get install debootstrap systemd-container`) and a Debian mirror. More options
are systemd-nspawn's, such as `--bind-ro=/etc/pip.conf` where packages come from elsewhere.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "bookworm"
PACKAGES = "systemd,systemd-sysv,libnss-systemd,sudo,ca-certificates,curl"
CGROUPS = Path("/sys/fs/cgroup")

# Ends the container with the trial's own exit status.
UNIT = """[Unit]
After=multi-user.target
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/usr/bin/python3 -u /root/kwsd/tests/service/guest.py
StandardOutput=tty
StandardError=tty
"""


def main() -> int:
    """The command. Returns the exit status of what runs inside."""
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    missing = [tool for tool in ("git", "debootstrap", "systemd-nspawn") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        print(f"trial: needs root, and {', '.join(missing) or 'nothing more'}", file=sys.stderr)
        return 2
    base, guest = Path(sys.argv[1]) / "debian", Path(sys.argv[1]) / "guest"
    if not base.exists():
        _make(base)
    shutil.rmtree(guest, ignore_errors=True)
    subprocess.run(["cp", "-a", "--reflink=auto", base, guest], check=True)
    subprocess.run(["git", "clone", "--quiet", ROOT, guest / "root/kwsd"], check=True)
    (guest / "etc/systemd/system/trial.service").write_text(UNIT)
    return _boot(guest, sys.argv[2:])


def _make(base: Path) -> None:
    """A Debian in which apt-get asks nothing, or nothing at all."""
    unfinished = base.with_suffix(".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, unfinished]
    subprocess.run(command, check=True)
    (unfinished / "etc/apt/apt.conf.d/assume-yes").write_text('APT::Get::Assume-Yes "true";\n')
    unfinished.rename(base)


def _boot(guest: Path, options: list[str]) -> int:
    command = ["systemd-nspawn", "--quiet", "-D", guest, "--machine=kwsd-trial", "--console=pipe", *options]
    if not Path("/run/systemd/system").exists():  # nobody here who would give the container a place
        command += ["--register=no", "--keep-unit"]
        for hierarchy in (CGROUPS, CGROUPS / "unified", CGROUPS / "systemd"):
            if (hierarchy / "cgroup.procs").exists():
                place = hierarchy / "kwsd-trial.service"
                place.mkdir(exist_ok=True)
                (place / "cgroup.procs").write_text(str(os.getpid()))
    command += ["--boot", "--", "--unit=trial.service", "--show-status=no", "--log-target=journal"]
    return subprocess.run(command, env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}).returncode


if __name__ == "__main__":
    sys.exit(main())
