"""Run the commands of docs/service.md on a fresh Debian under its own systemd; then break the service.

    sudo python tests/systemd/trial.py DEBIAN [OPTION OF systemd-nspawn …]

DEBIAN is a folder. The first run installs a minimal Debian (400 MB) in it. A copy in memory boots as
a container, with a PulseAudio monitor as microphone. In it, `guest.py` runs the steps of a new user,
and what happens to a service in the long run. Each check prints a line.
The exit status is 0 if all checks pass. The trial takes four minutes. It needs root, debootstrap and
systemd-nspawn (Debian: `apt-get install debootstrap systemd-container`) and a Debian mirror. Further
options go to systemd-nspawn, such as `--bind-ro=/etc/pip.conf` for another package index.
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
ExecStart=/usr/bin/python3 -u /srv/kwsd/tests/systemd/guest.py
StandardOutput=tty
StandardError=tty
"""


def main() -> int:
    """Run the trial. Returns the exit status of the container."""
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
    """Install a Debian that resolves its own host name and whose apt-get asks no questions."""
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
        command += ["--capability=CAP_BPF", "--system-call-filter=bpf"]  # for systemd's per-unit firewall and devices
        command += [f"--bind-ro={unit}:/etc/systemd/system/trial.service", f"--overlay={ROOT}::/srv/kwsd", *options]
        if not Path("/run/systemd/system").exists():  # no systemd here to give the container a cgroup
            _take_a_place()
            command += ["--register=no", "--keep-unit"]
        command += ["--boot", "--", "--unit=trial.service", "--show-status=no", "--log-level=warning"]
        return subprocess.run(command, env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}).returncode


def _take_a_place() -> None:
    """Move this process into a control group, under which the container gets its own."""
    for hierarchy in (CGROUPS, CGROUPS / "unified", CGROUPS / "systemd"):
        if (hierarchy / "cgroup.procs").exists():
            place = hierarchy / "kwsd-trial.service"
            place.mkdir(exist_ok=True)
            (place / "cgroup.procs").write_text(str(os.getpid()))


if __name__ == "__main__":
    sys.exit(main())
