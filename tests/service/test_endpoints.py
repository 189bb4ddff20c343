"""Access to the endpoints: TCP with tokens and TLS, Unix sockets with modes and groups; and score events."""

import asyncio
import grp
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from kwsd.client import subscribe, subscribe_async
from kwsd.errors import SocketError
from kwsd.protocol.events import DetectionEvent, Hello, Scores, parse_event
from kwsd.service.endpoints import bind_tcp
from support import DEMO, free_port, kwsd

TLS = Path(__file__).parent / "tls"
TOKEN = "correct horse battery staple"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def start(start_daemon, tmp_path):
    """Start a daemon with these configuration keys; gives its TCP address."""

    def start(**keys):
        address = f"127.0.0.1:{free_port()}"
        config = tmp_path / "kwsd.yaml"
        config.write_text(json.dumps({"source": str(DEMO), "tcp": address} | {k: str(v) for k, v in keys.items()}))
        start_daemon("--config", config)
        return address

    return start


async def first_async(address, **options):
    async with aclosing(subscribe_async(address, **options)) as events:
        first = await anext(events)
    await asyncio.sleep(0.1)  # until TLS has closed the connection
    return first


def trust():
    return ssl.create_default_context(cafile=TLS / "certificate.pem")


def tell(address, *lines):
    """Send raw lines over plain TCP; return the daemon's answer."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection, connection.makefile("rb") as answers:
        connection.sendall(b"".join(line + b"\n" for line in lines))
        connection.shutdown(socket.SHUT_WR)
        try:
            return answers.read()
        except ConnectionError:
            return b""


def test_tcp_on_this_machine_needs_no_token(start):
    address = start()
    assert isinstance(next(subscribe(address)), Hello)

    assert isinstance(asyncio.run(first_async(address)), Hello)


def test_only_a_client_with_the_right_token_gets_events(start, token_file):
    address = start(token_file=token_file)
    assert isinstance(next(subscribe(address, token=TOKEN)), Hello)
    for line in (
        b'{"type":"authenticate","token":"correct horse battery stapl"}',
        b'{"type":"authenticate","token":7}',
        b'{"type":"subscribe"}',
        b"garbage",
    ):
        assert tell(address, line) == b'{"type":"error","reason":"wrong token","retryable":false}\n', line
    assert tell(address) == b""
    with pytest.raises(SocketError, match="wrong token"):
        list(subscribe(address, token="something else altogether"))
    with pytest.raises(SocketError, match="wrong token"):
        list(subscribe(address, labels=["yes"], token="x"))


def test_tls_serves_only_clients_that_use_tls(start, token_file):
    address = start(token_file=token_file, tls_certificate=TLS / "certificate.pem", tls_key=TLS / "key.pem")
    assert isinstance(next(subscribe(address, token=TOKEN, tls=trust())), Hello)

    assert isinstance(asyncio.run(first_async(address, token=TOKEN, tls=trust())), Hello)
    shown = json.dumps({"type": "authenticate", "token": TOKEN}).encode()
    assert b"hello" not in tell(address, shown)  # not in plain text, even with the right token
    with pytest.raises(SocketError):  # a certificate that the client does not trust
        next(subscribe(address, token=TOKEN, tls=ssl.create_default_context()))
    assert isinstance(next(subscribe(address, token=TOKEN, tls=trust())), Hello)


def test_listen_takes_token_and_certificate_from_files(start, token_file):
    files = {"tls_certificate": TLS / "certificate.pem", "tls_key": TLS / "key.pem"}
    address = start(token_file=token_file, **files)
    ask = ("listen", "--once", "--json", "--socket", address, "--tls-ca", TLS / "certificate.pem")
    without = kwsd(*ask)
    assert without.returncode == 1
    assert without.stderr == f"kwsd: {address}: no token within 5 s\n"
    command = [sys.executable, "-m", "kwsd", *map(str, ask), "--token-file", str(token_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listen:
        assert isinstance(parse_event(listen.stdout.readline()), Hello)
        listen.kill()


def test_a_reload_replaces_the_token(start_daemon, token_file, tmp_path):
    config = tmp_path / "kwsd.yaml"
    address = f"127.0.0.1:{free_port()}"
    config.write_text(json.dumps({"source": str(DEMO), "tcp": address, "token_file": str(token_file)}))
    daemon, _ = start_daemon("--config", config)
    log = iter(daemon.stderr)
    token_file.write_text("short")
    daemon.send_signal(signal.SIGHUP)
    assert "too short for a token" in next(line for line in log if "reload:" in line)
    assert isinstance(next(subscribe(address, token=TOKEN)), Hello)
    token_file.write_text("quite another token")
    daemon.send_signal(signal.SIGHUP)
    assert next(line for line in log if "reload: done" in line)
    assert isinstance(next(subscribe(address, token="quite another token")), Hello)
    with pytest.raises(SocketError, match="wrong token"):
        next(subscribe(address, token=TOKEN))


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"tcp": "0.0.0.0:7000"}, "tcp: 0.0.0.0:7000 is open to other machines; set token_file"),
        ({"tcp": ":7000"}, "tcp: ':7000' is not HOST:PORT"),
        ({"tcp": "127.0.0.1:70000"}, "tcp: '127.0.0.1:70000' is not HOST:PORT"),
        ({"tcp": "127.0.0.1:7000", "tls_key": "k"}, "tls_certificate, tls_key: one needs the other"),
        ({"token_file": "t"}, "tcp, http: missing; token_file and tls_certificate are only for them"),
        ({"socket_mode": "rw"}, "socket_mode: 'rw' is not a mode"),
        ({"socket_mode": 660}, "socket_mode: 660 is not text"),
        ({"metrics": "0.0.0.0:9000"}, "metrics: 0.0.0.0:9000 is open to other machines"),
        ({"tcp": "127.0.0.1:7000", "token_file": "absent"}, "absent: No such file"),
        ({"socket_group": "no such group"}, "cannot be given to group no such group (no such group)"),
    ],
    ids=str,
)
def test_an_invalid_endpoint_is_refused_with_a_one_line_error(tmp_path, keys, problem):
    config = tmp_path / "kwsd.yaml"
    config.write_text(json.dumps({"source": str(DEMO), **keys}))
    result = kwsd("run", "--config", config, "--socket", tmp_path / "s", cwd=tmp_path)
    assert result.returncode in (1, 2)
    assert problem in result.stderr.splitlines()[-1]
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [(TOKEN.encode(), 0o644, "every user can read"), (b"x", 0o600, "short"), (b"\xff" * 40, 0o600, "not text")],
)
def test_an_invalid_token_file_is_refused(tmp_path, content, mode, problem):
    token, config = tmp_path / "token", tmp_path / "kwsd.yaml"
    token.write_bytes(content)
    token.chmod(mode)
    config.write_text(json.dumps({"source": str(DEMO), "tcp": "127.0.0.1:0", "token_file": str(token)}))
    result = kwsd("run", "--config", config, "--socket", tmp_path / "s")
    assert result.returncode == 1
    assert problem in result.stderr
    assert TOKEN not in result.stderr


def test_a_file_that_is_not_a_tls_key_is_refused(tmp_path):
    config = tmp_path / "kwsd.yaml"
    keys = {"tls_certificate": str(TLS / "certificate.pem"), "tls_key": str(DEMO)}
    config.write_text(json.dumps({"source": str(DEMO), "tcp": "127.0.0.1:0", **keys}))
    result = kwsd("run", "--config", config, "--socket", tmp_path / "s")
    assert result.returncode == 1
    assert "not a certificate and its key" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_unix_socket_has_the_configured_mode_and_group(start_daemon, tmp_path):
    others = [group for group in grp.getgrall() if group.gr_gid != os.getegid()]
    mine = [group for group in others if os.getuid() == 0 or group.gr_gid in os.getgroups()]
    if not mine:
        pytest.skip("this user has only one group, which files get anyway")
    group = mine[0]
    config = tmp_path / "kwsd.yaml"
    config.write_text(json.dumps({"source": str(DEMO), "socket_mode": "0600", "socket_group": group.gr_name}))
    _, path = start_daemon("--config", config)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_gid == group.gr_gid


@pytest.mark.skipif(os.getuid() != 0, reason="only root can switch to another user")
def test_a_user_without_permission_cannot_open_the_unix_socket(start_daemon, tmp_path):
    _, path = start_daemon("--source", DEMO)
    tmp_path.chmod(0o755)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(0o755)
    pid = os.fork()
    if pid == 0:  # the user `nobody`, in another process
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as connection:
            os._exit(0 if connection.connect_ex(str(path)) == 13 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_scores_are_sent_only_on_request_and_match_the_detection(start_daemon):
    _, path = start_daemon("--source", DEMO)
    scores, detected = [], None
    for event in subscribe(path, scores=True, labels=["down", "go"], reconnect=False):
        if isinstance(event, Scores):
            assert event.scores.keys() == {"down", "go"}
            scores.append(event)
        elif isinstance(event, DetectionEvent):
            detected = event
            break
    assert (
        detected.score
        == next(one for one in reversed(scores) if one.end_seconds == detected.end_seconds).scores["down"]
    )
    strides = [round(b.end_seconds - a.end_seconds, 3) for a, b in pairwise(scores)]
    assert set(strides) == {0.1}
    other = subscribe(path, reconnect=False)
    assert isinstance(next(other), Hello)
    assert not isinstance(next(other), Scores)


def test_check_finds_the_errors_that_would_stop_run(tmp_path):
    config = tmp_path / "kwsd.yaml"
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
        busy = dict(zip(("audio", "tcp", "metrics"), addresses, strict=True))
        config.write_text(json.dumps({"source": str(DEMO), "socket_group": "nosuchgroup", **busy}))
        out = kwsd("check", "--config", config, "--socket", tmp_path / "s").stdout
    for part, address in zip(("audio socket", "tcp", "metrics"), addresses, strict=True):
        assert f"FAIL  {part}: {address}: cannot be bound (Address already in use" in out
    assert "cannot be given to group nosuchgroup (no such group)" in out


def test_check_examines_the_token_and_the_folder_of_clips(token_file, tmp_path):
    config = tmp_path / "kwsd.yaml"
    address = f"127.0.0.1:{free_port()}"
    keys = {"source": str(DEMO), "tcp": address, "token_file": str(token_file)}
    config.write_text(json.dumps(keys | {"clips": {"folder": str(tmp_path)}}))
    result = kwsd("check", "--config", config, "--socket", tmp_path / "s")
    assert result.returncode == 0, result.stdout
    assert f"ok    tcp: {address}, with a token\n" in result.stdout
    assert f"ok    clips: kept in {tmp_path}\n" in result.stdout
    token_file.chmod(0o644)
    config.write_text(json.dumps(keys | {"clips": {"folder": str(tmp_path / "absent")}}))
    result = kwsd("check", "--config", config, "--socket", tmp_path / "s")
    assert result.returncode == 1
    assert f"FAIL  tcp: {token_file}: every user can read the token; chmod o-r it\n" in result.stdout
    assert "create this folder, and let kwsd write to it" in result.stdout


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_all_addresses_of_ipv6_are_also_those_of_ipv4():
    with bind_tcp("[0:0::0]:0") as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), 5).close()
