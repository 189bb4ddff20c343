"""What a new user does with the service, and what happens to it in the long run: `trial.py` runs this as root.

Each function is a check, in this order, and says in its name what must hold.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "/run/kwsd/kwsd.sock"
KWSD = "/opt/kwsd/bin/kwsd"
CONFIG = Path("/etc/kwsd.yaml")
PULSE = "unix:/run/pulse/native"
KEYWORDS = [one["label"] for one in json.loads((ROOT / "demo" / "recording.json").read_text())]


def give_the_machine_a_microphone() -> None:
    sh("apt-get -q update && apt-get -q install --no-install-recommends pulseaudio pulseaudio-utils libasound2-plugins")
    sh(
        "pulseaudio -n --system --daemonize=yes --disallow-exit --exit-idle-time=-1 --use-pid-file=no"
        " -L 'module-native-protocol-unix auth-anonymous=1 socket=/run/pulse/native'"
        " -L 'module-null-sink sink_name=nul rate=16000 channels=1 format=s16le'"
    )
    Path("/etc/asound.conf").write_text(f'pcm.!default {{ type pulse server "{PULSE}" }}\n')
    for user, group in (("member", "audio"), ("stranger", "users")):
        sh(f"useradd --create-home --groups {group} {user}")


def the_readme_installs_it() -> None:
    section = (ROOT / "README.md").read_text().partition("## As a service")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0]
    assert "enable --now" in commands
    sh(f"set -e\n{commands}")
    assert sh("systemctl is-active kwsd.service kwsd.socket").split() == ["active", "active"]


def it_runs_as_nobody_who_may_nothing() -> None:
    status = Path(f"/proc/{main_pid()}/status").read_text()
    fields = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    assert fields["Uid"].split()[0] != "0"
    assert fields["CapBnd"] == fields["CapEff"] == "0" * 16
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    exposure = sh("systemd-analyze security --no-pager --threshold=20 kwsd.service").splitlines()[-1]
    print(f"      {exposure.strip(' →')}")


def a_member_of_the_group_hears_all_keywords() -> None:
    with listening("runuser -u member --") as told:
        sh(f"paplay --device=nul {ROOT / 'demo' / 'recording.wav'}")
        until(lambda: len(labels(told())) >= len(KEYWORDS), 5)
    assert labels(told()) == KEYWORDS, labels(told())


def a_stranger_is_refused() -> None:
    result = subprocess.run(
        f"runuser -u stranger -- {KWSD} listen --socket {SOCKET}", shell=True, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "you may not connect (Permission denied)" in result.stderr, result.stderr
    assert result.stdout == ""


def its_health_and_metrics_are_told() -> None:
    assert json.loads(sh("curl -sf 127.0.0.1:9110/healthz"))["status"] == "ok"
    assert "kwsd_detections_total{" in sh("curl -sf 127.0.0.1:9110/metrics")


def reload_takes_what_is_right_and_keeps_the_old_otherwise() -> None:
    pid, right = main_pid(), CONFIG.read_text()
    with listening() as told:
        CONFIG.write_text(right + "clips: {folder: /var/lib/kwsd}\n")
        sh("systemctl reload kwsd")
        until(lambda: "reload: done" in journal(), 10)
        CONFIG.write_text(right + "thresholdz: 3\n")
        sh("systemctl reload kwsd")
        until(lambda: "thresholdz: unknown key" in journal(), 10)
        CONFIG.write_text(right + "clips: {folder: /var/lib/kwsd}\n")
        assert main_pid() == pid
        sh(f"paplay --device=nul {ROOT / 'demo' / 'recording.wav'}")
        until(lambda: len(labels(told())) >= len(KEYWORDS), 5)
    time.sleep(2)
    assert len(list(Path("/var/lib/private/kwsd").glob("*.wav"))) == len(KEYWORDS)


def it_comes_back_when_killed() -> None:
    with listening() as told:
        sh("systemctl kill --signal=KILL kwsd.service")
        until(lambda: "gap" in told() and sh("systemctl is-active kwsd.service || :") == "active\n", 20)


def it_comes_back_when_deaf() -> None:
    before = main_pid()
    sh("systemctl kill --signal=STOP kwsd.service")
    until(lambda: "Failed with result 'watchdog'" in journal() and main_pid() not in ("0", before), 60)
    until(lambda: sh("systemctl is-active kwsd.service || :") == "active\n", 20)


def tcp_wants_the_token() -> None:
    sh("umask 077 && openssl rand -hex 32 > /etc/kwsd.token")
    CONFIG.write_text(CONFIG.read_text() + "tcp: 0.0.0.0:7310\ntoken_file: /run/credentials/kwsd.service/token\n")
    folder = Path("/etc/systemd/system/kwsd.service.d")
    folder.mkdir()
    (folder / "override.conf").write_text("[Service]\nLoadCredential=token:/etc/kwsd.token\n")
    sh("systemctl daemon-reload && systemctl restart kwsd")
    listen = f"timeout 3 {KWSD} listen --json --socket 127.0.0.1:7310"
    assert '"hello"' in sh(f"{listen} --token-file /etc/kwsd.token || :")
    refused = sh(f"echo wrong > /root/wrong && {listen} --token-file /root/wrong 2>&1 || :")
    assert "wrong token" in refused, refused
    assert "hello" not in refused
    assert Path("/etc/kwsd.token").read_text().strip() not in journal()


def it_stops_in_time_and_says_goodbye() -> None:
    with listening() as told:
        began = time.monotonic()
        sh("systemctl stop kwsd.socket kwsd.service")
        assert time.monotonic() - began < 5
        until(lambda: "goodbye" in told(), 2)


def a_subscriber_may_be_first() -> None:
    sh("systemctl start kwsd.socket")
    assert sh("systemctl is-active kwsd.service || :") == "inactive\n"
    with listening() as told:
        until(lambda: "hello" in told(), 20)
    assert sh("systemctl is-active kwsd.service") == "active\n"


def nothing_came_as_a_traceback() -> None:
    assert "Traceback" not in journal()


CHECKS = [function for function in list(globals().values()) if getattr(function, "__module__", "") == __name__]


def main() -> int:
    """Do all, and say of each whether it held. Returns 1 at the first that does not."""
    for check in CHECKS:
        began = time.monotonic()
        try:
            check()
        except (AssertionError, subprocess.CalledProcessError) as error:
            print(f"FAILED  {readable(check)}: {error!r}\n{getattr(error, 'output', '')}\n{journal()}")
            return 1
        print(f"ok    {readable(check)} ({time.monotonic() - began:.0f} s)")
    return 0


def readable(check: Callable[[], None]) -> str:
    return check.__name__.replace("_", " ")


def sh(command: str) -> str:
    """What a command prints; an error if it fails."""
    environment = os.environ | {"PULSE_SERVER": PULSE, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


@contextmanager
def listening(by: str = ""):
    """A subscriber; gives what says what it was told so far, once it is connected."""
    path = Path("/root/told")
    with path.open("w") as file:
        listener = subprocess.Popen(f"exec {by} {KWSD} listen --json --socket {SOCKET}", shell=True, stdout=file)
    try:
        until(lambda: "hello" in path.read_text(), 20)
        yield path.read_text
    finally:
        listener.terminate()
        listener.wait()


def labels(told: str) -> list[str]:
    events = [json.loads(line) for line in told.splitlines() if line.endswith("}")]
    return [event["label"] for event in events if event["type"] == "detection"]


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.1)


def main_pid() -> str:
    return sh("systemctl show --property=MainPID --value kwsd.service").strip()


def journal() -> str:
    return sh("journalctl --unit=kwsd.service --no-pager --output=cat || :")


if __name__ == "__main__":
    sys.exit(main())
