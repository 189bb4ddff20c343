"""Who may use the live page, and clients that are slow or hostile."""

import json
import signal
import socket
import ssl
import threading
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from support import DEMO, ends_well, free_port, kwsd, listens, send_audio

TLS = Path(__file__).parents[1] / "tls"


def test_beyond_this_machine_everything_but_the_page_itself_needs_the_token(serve, token, token_file):
    page = serve(host="0.0.0.0", **token_file)
    assert page.ask("GET", "/")[0] == 200
    assert page.ask("GET", "/livez")[0] == 200
    for path in ("/api/state", "/events", "/metrics", "/healthz", "/api/clips"):
        assert page.ask("GET", path)[0] == 401, path
    assert page.ask("GET", "/api/state", Authorization=f"Bearer {token}")[0] == 200
    assert page.ask("GET", "/api/state", Authorization="Bearer wrong")[0] == 401
    assert page.ask("POST", "/api/session", {"token": "wrong"})[0] == 401
    assert page.ask("POST", "/api/session", {"token": token})[0] == 204
    cookie = page.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert token not in cookie
    assert page.ask("GET", "/api/state", Cookie=cookie.partition(";")[0])[0] == 200
    assert page.ask("GET", "/api/state", Cookie="kwsd=wrong")[0] == 401


def test_on_this_machine_reading_is_free_and_changes_need_the_token_if_there_is_one(serve, token, token_file):
    page = serve(**token_file)
    assert page.ask("GET", "/api/state")[0] == 200
    mute = {"stream": "default", "muted": True}
    assert page.ask("PUT", "/api/muted", mute)[0] == 401
    assert page.ask("PUT", "/api/muted", mute, Authorization=f"Bearer {token}")[0] == 204


def test_an_open_address_without_a_token_is_refused(tmp_path):
    config = tmp_path / "kwsd.yaml"
    config.write_text("http: 0.0.0.0:7311\n")
    result = kwsd("run", "--config", config)
    assert result.returncode == 2
    assert "http: 0.0.0.0:7311 is open to other machines; set token_file" in result.stderr


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:7311"}, 421),
        ({"Host": "127.0.0.1:1/livez?"}, 421),
        ({"Host": "127.0.0.1/page/x"}, 421),
        ({"Host": "127.0.0.1:1#"}, 421),
        ({"Host": "user@127.0.0.1"}, 421),
        ({"Host": "localhost"}, 204),
        ({"Host": "[::1]:7311"}, 204),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 204),
        ({"Content_Type": "text/plain"}, 415),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415),
    ],
    ids=str,
)
def test_requests_of_other_sites_are_refused(serve, headers, status):
    page = serve()
    assert page.ask("PUT", "/api/muted", {"stream": "default", "muted": False}, **headers)[0] == status
    if status in (421, 403):
        assert page.ask("GET", "/api/state", **headers)[0] == status
    assert page.ask("GET", "/", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")[0] == 200  # a link to the page


def test_slow_and_endless_requests_do_not_disturb_the_others(serve):
    page = serve()
    address, idle = ("127.0.0.1", page.port), []
    for n in range(200):
        idle.append(socket.create_connection(address, timeout=10))
        if n % 2:
            idle[-1].sendall(b"GET /api/state HTTP/1.1\r\n")
    for body in (b"x" * 200_000, b'{"a":' * 100_000):
        status, _ = page.ask("PUT", "/api/muted", body)
        assert status in (400, 413)
    began = time.monotonic()
    assert page.ask("GET", "/livez")[0] == 200
    assert time.monotonic() - began < 1
    with suppress(ConnectionError):
        assert idle[0].recv(100) == b""  # closed: it gave way, or asked for nothing in time
    for connection in idle:
        connection.close()
    ends_well(page.daemon)


def test_a_browser_that_does_not_read_delays_no_other_client(serve, tmp_path, demo):
    page = serve(audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    stuck = socket.create_connection(("127.0.0.1", page.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(b"GET /events?scores=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    samples = np.round(np.tile(demo, 20) * 32767).astype("<i2")
    heard = []
    events = page.events()
    sending = threading.Thread(
        target=lambda: send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False).close()
    )
    sending.start()
    for _, _, data in events:
        heard += [data["label"]] if data["type"] == "detection" else []
        if data["type"] == "source_down":
            break
    sending.join()
    assert len(heard) >= 150
    stuck.close()
    ends_well(page.daemon)


def test_no_host_changes_which_path_is_asked_for(serve, token, token_file):
    page = serve(host="0.0.0.0", **token_file)
    for host in ("127.0.0.1:1/livez?", "127.0.0.1/livez#", "localhost/page/x?"):
        assert page.ask("GET", "/api/state", Host=host)[0] == 421


def test_a_reload_changes_the_token_and_ends_sessions(serve, token, token_file):
    page = serve(host="0.0.0.0", **token_file)
    page.ask("POST", "/api/session", {"token": token})
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    assert page.ask("GET", "/api/state", Cookie=cookie)[0] == 200
    for new, old in (("another token, long enough", token), (token, "another token, long enough")):
        Path(token_file["token_file"]).write_text(new)
        page.daemon.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while page.ask("GET", "/api/state", Authorization=f"Bearer {new}")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert page.ask("GET", "/api/state", Authorization=f"Bearer {old}")[0] == 401
        assert page.ask("GET", "/api/state", Cookie=cookie)[0] == 401


def test_a_body_without_its_end_leaves_no_traceback(serve):
    page = serve()
    with socket.create_connection(("127.0.0.1", page.port)) as connection:
        head = "PUT /api/muted HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f'{head}Content-Length: 100\r\n\r\n{{"a'.encode())
    assert page.ask("GET", "/livez")[0] == 200
    ends_well(page.daemon)


def test_a_page_that_does_not_read_delays_no_end_and_leaves_no_traceback(serve, tmp_path, demo):
    page = serve(audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.connect(("127.0.0.1", page.port))
    stuck.sendall(b"GET /events?scores=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    samples = np.round(np.tile(demo, 30) * 32767).astype("<i2")
    send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False).close()
    assert "ERROR" not in ends_well(page.daemon)
    stuck.close()


def test_with_tls_unfinished_handshakes_are_few_and_others_are_served(start_daemon, tmp_path):
    port, config = free_port(), tmp_path / "kwsd.yaml"
    keys = {"http": f"127.0.0.1:{port}", "source": str(DEMO)}
    keys |= {"tls_certificate": str(TLS / "certificate.pem"), "tls_key": str(TLS / "key.pem")}
    config.write_text(json.dumps(keys))
    daemon, _ = start_daemon("--config", config)
    listens(port)
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    context = ssl.create_default_context(cafile=TLS / "certificate.pem")
    with urllib.request.urlopen(f"https://localhost:{port}/livez", context=context, timeout=10) as answer:
        assert answer.status == 200
    descriptors = len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))
    assert descriptors < 64 + 40
    for connection in silent:
        connection.close()
    ends_well(daemon)
