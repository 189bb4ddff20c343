"""An address is a path or HOST:PORT. A loopback address is reachable only from this machine."""

import socket
from pathlib import Path

import pytest

from kwsd.errors import SocketError
from kwsd.protocol.address import ServerAddress, default_socket, host_and_port, is_loopback, keep_alive, unix_path


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/run/kwsd.sock", Path("/run/kwsd.sock")),
        ("kwsd.sock", Path("kwsd.sock")),
        ("/tmp/kwsd:1", Path("/tmp/kwsd:1")),
        ("~/kwsd.sock", Path.home() / "kwsd.sock"),
        ("~nosuchuser/kwsd.sock", Path("~nosuchuser/kwsd.sock")),
        ("localhost:7310", None),
        ("[::1]:7310", None),
    ],
)
def test_an_address_without_a_port_is_a_path(address, path):
    assert unix_path(address) == path


@pytest.mark.parametrize(
    ("address", "parts"),
    [("localhost:0", ("localhost", 0)), ("[::1]:65535", ("::1", 65535)), ("10.0.0.1:80", ("10.0.0.1", 80))],
)
def test_host_and_port_are_split(address, parts):
    assert host_and_port(address) == parts


WRONG = [
    "",
    ":80",
    "host",
    "host:",
    "host:-1",
    "host:65536",
    "host:" + "9" * 5000,
    "host:x",
    "a..b:80",
    "a" * 64 + ":80",
]


@pytest.mark.parametrize("address", WRONG, ids=lambda text: text[:12])
def test_any_other_form_is_refused(address):
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        host_and_port(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("[::1]:1", True),
        ("localhost:1", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("192.168.1.5:1", False),
        ("hall.example:1", False),
    ],
)
def test_loopback_addresses_are_recognised(address, expected):
    assert is_loopback(address) is expected


def test_the_default_socket_is_in_the_folder_of_the_service_or_the_session(monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/kwsd")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_socket() == Path("/run/kwsd/kwsd.sock")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert default_socket() == Path("/run/user/1000/kwsd.sock")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert default_socket().parent == Path("/tmp")


def test_keep_alive_is_set_for_tcp_only():
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        keep_alive(tcp)
        keep_alive(unix)
        assert tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert unix.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


def test_an_address_of_neither_form_is_refused_in_one_line():
    with pytest.raises(SocketError, match="'host:99999' is not HOST:PORT, nor a path"):
        ServerAddress.at("host:99999", None, None)


def test_another_users_socket_at_the_default_path_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    (tmp_path / "kwsd.sock").touch()
    monkeypatch.setattr("kwsd.protocol.address.os.getuid", lambda: 12345)
    monkeypatch.setattr(Path, "lstat", lambda self: type("Status", (), {"st_uid": 777})())
    with pytest.raises(SocketError, match="it belongs to another user"):
        ServerAddress.at(None, None, None).connect()


def test_a_failed_connection_says_how_to_start_a_daemon(tmp_path):
    with pytest.raises(SocketError, match=r"no kwsd to subscribe to .*; start one with `kwsd run`"):
        ServerAddress.at(tmp_path / "absent.sock", None, None).connect()
