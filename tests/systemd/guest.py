"""The steps of a new user, and what happens to a service in the long run. `trial.py` runs this as root.

The functions above `CHECKS` are the checks, in this order. Their names state what must hold.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SOCKET = "/run/kwsd/kwsd.sock"
KWSD = "/opt/kwsd/bin/kwsd"
CONFIG = Path("/etc/kwsd.yaml")
PULSE = "unix:/run/pulse/native"
RECORDING = ROOT / "demo" / "recording.wav"
KEYWORDS = [one["word"] for one in json.loads(RECORDING.with_suffix(".json").read_text()) if one["is_keyword"]]


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


def the_commands_in_the_docs_install_it() -> None:
    section = (ROOT / "docs" / "service.md").read_text().partition("## As a systemd service")[2]
    commands = section.partition("```sh\n")[2].partition("```")[0]
    assert "enable --now" in commands
    sh(f"set -e\n{commands}")
    assert sh("systemctl is-active kwsd.service kwsd.socket").split() == ["active", "active"]


def it_runs_without_root_and_without_capabilities() -> None:
    status = Path(f"/proc/{main_pid()}/status").read_text()
    fields = dict(re.findall(r"^(\w+):\s*(.*)$", status, re.MULTILINE))
    assert fields["Uid"].split()[0] != "0"
    assert fields["CapBnd"] == fields["CapEff"] == "0" * 16
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    exposure = sh("systemd-analyze security --no-pager --threshold=20 kwsd.service").splitlines()[-1]
    print(f"      {exposure.strip(' →')}")


def a_member_of_the_group_gets_all_keywords() -> None:
    with listening(user="member", extra_groups=["audio"]) as told:
        sh(f"paplay --device=nul {RECORDING}")
        until(lambda: len(labels(told())) >= len(KEYWORDS), 5)
    assert labels(told()) == KEYWORDS, labels(told())


def a_user_outside_the_group_is_refused() -> None:
    command = [KWSD, "listen", "--socket", SOCKET]
    result = subprocess.run(command, user="stranger", extra_groups=[], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    assert "you may not connect (Permission denied)" in result.stderr, result.stderr


def it_serves_health_and_metrics() -> None:
    assert json.loads(sh("curl -sf 127.0.0.1:9110/healthz"))["status"] == "ok"
    assert "kwsd_detections_total{" in sh("curl -sf 127.0.0.1:9110/metrics")


def reload_takes_a_valid_configuration_and_otherwise_keeps_the_old_one() -> None:
    before, config = main_pid(), CONFIG.read_text()
    with listening() as told:
        for changed, answer in (("threshold: 0.5", "reload: done"), ("thresholdz: 3", "thresholdz: unknown key")):
            CONFIG.write_text(f"{config}{changed}\n")
            sh("systemctl reload kwsd")
            until(lambda answer=answer: answer in journal(), 10)
        assert "goodbye" not in told()
    CONFIG.write_text(config)
    assert main_pid() == before


def it_restarts_after_it_is_killed() -> None:
    with listening() as told:
        sh("systemctl kill --signal=KILL kwsd.service")
        until(lambda: "gap" in told() and is_active(), 20)


def it_restarts_after_it_hangs() -> None:
    before = main_pid()
    sh("systemctl kill --signal=STOP kwsd.service")
    until(lambda: "Failed with result 'watchdog'" in journal() and main_pid() not in ("0", before), 60)
    until(is_active, 20)


def clips_are_written_to_its_state_folder() -> None:
    CONFIG.write_text(CONFIG.read_text() + "clips: {folder: /var/lib/kwsd}\n")
    sh("systemctl restart kwsd")
    sh(f"paplay --device=nul {RECORDING}")
    until(lambda: len(list(Path("/var/lib/kwsd").glob("*.wav"))) == len(KEYWORDS), 5)


def tcp_requires_the_token_and_an_allowed_address() -> None:
    sh("umask 077 && openssl rand -hex 32 > /etc/kwsd.token && echo wrong > /run/wrong")
    CONFIG.write_text(CONFIG.read_text() + "tcp: 0.0.0.0:7310\ntoken_file: /run/credentials/kwsd.service/token\n")
    override_with("LoadCredential=token:/etc/kwsd.token")
    assert '"hello"' in listen_over_tcp("127.0.0.1", "/etc/kwsd.token")
    refused = listen_over_tcp("127.0.0.1", "/run/wrong")
    assert "wrong token" in refused, refused
    assert "hello" not in refused
    address = own_address()
    assert "hello" not in listen_over_tcp(address, "/etc/kwsd.token")
    override_with(f"LoadCredential=token:/etc/kwsd.token\nIPAddressAllow={address}")
    assert '"hello"' in listen_over_tcp(address, "/etc/kwsd.token")
    assert Path("/etc/kwsd.token").read_text().strip() not in journal()


def it_stops_in_time_and_says_goodbye() -> None:
    with listening() as told:
        began = time.monotonic()
        sh("systemctl stop kwsd.socket kwsd.service")
        assert time.monotonic() - began < 5
        until(lambda: "goodbye" in told(), 2)


def a_subscriber_starts_the_service() -> None:
    sh("systemctl start kwsd.socket")
    assert not is_active()
    with listening():
        until(is_active, 20)


def the_journal_contains_no_traceback() -> None:
    assert "Traceback" not in journal()


CHECKS = [function for function in list(globals().values()) if getattr(function, "__module__", "") == __name__]


def main() -> int:
    """Run all checks and print the result of each. Returns 1 at the first failure."""
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
    """Run a command and return its output. Raises an error if it fails."""
    environment = os.environ | {"PULSE_SERVER": PULSE, "DEBIAN_FRONTEND": "noninteractive", "HOME": "/run"}
    return subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE
    ).stdout


@contextmanager
def listening(**who: Any) -> Iterator[Callable[[], str]]:
    """Run a subscriber. Once it is connected, yield a function that returns its output."""
    path = Path("/run/told")
    with path.open("w") as file:
        listener = subprocess.Popen([KWSD, "listen", "--json", "--socket", SOCKET], stdout=file, **who)
    try:
        until(lambda: "hello" in path.read_text(), 20)
        yield path.read_text
    finally:
        listener.terminate()
        listener.wait()


def listen_over_tcp(host: str, token: str) -> str:
    """Return the output of a subscriber over TCP after three seconds."""
    return sh(f"timeout 3 {KWSD} listen --json --socket {host}:7310 --token-file {token} 2>&1 || :")


def override_with(settings: str) -> None:
    """Override settings of the service, as `systemctl edit` does."""
    folder = Path("/etc/systemd/system/kwsd.service.d")
    folder.mkdir(exist_ok=True)
    (folder / "override.conf").write_text(f"[Service]\n{settings}\n")
    sh("systemctl daemon-reload && systemctl restart kwsd")


def own_address() -> str:
    """Return the address by which others reach this machine. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])


def labels(told: str) -> list[str]:
    events = [json.loads(line) for line in told.splitlines() if line.endswith("}")]
    return [event["label"] for event in events if event["type"] == "detection"]


def until(holds: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.1)


def is_active() -> bool:
    return sh("systemctl is-active kwsd.service || :") == "active\n"


def main_pid() -> str:
    return sh("systemctl show --property=MainPID --value kwsd.service").strip()


def journal() -> str:
    return sh("journalctl --unit=kwsd.service --no-pager --output=cat || :")


if __name__ == "__main__":
    sys.exit(main())
