"""A running daemon with a live page."""

import http.client
import json
import time
from contextlib import closing

import pytest
import yaml

from support import DEMO, free_port, listens

JSON = {"Content-Type": "application/json"}


class Page:
    """A running daemon with a live page."""

    def __init__(self, daemon, socket_path, host, port):
        self.daemon, self.socket, self.host, self.port = daemon, socket_path, host, port

    def ask(self, method, path, body=None, **headers):
        """One request; returns the status, and the answer's JSON or text."""
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        if body is not None:
            sent = JSON | sent
            body = body if isinstance(body, bytes) else json.dumps(body)
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=20)) as connection:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
            self.headers = answer.headers
        is_json = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if is_json else text.decode(errors="replace")

    def until(self, path, condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while True:
            _, answer = self.ask("GET", path)
            if condition(answer):
                return answer
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)

    def events(self, query="", **headers):
        """Begin a stream of events at once, and return what iterates over them: (id, event's name, data)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        connection.request(
            "GET", f"/events{query}", headers={key.replace("_", "-"): one for key, one in headers.items()}
        )
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        return _events(connection, answer)


def _events(connection, answer):
    fields = {}
    with closing(connection), closing(answer):
        for line in answer:
            key, _, value = line.decode().rstrip("\n").partition(": ")
            if key and value:
                fields[key] = value
            elif fields:
                yield fields.get("id"), fields.get("event", "message"), json.loads(fields["data"])
                fields = {}


@pytest.fixture
def serve(start_daemon, tmp_path):
    def serve(host="127.0.0.1", **keys):
        port, config = free_port(), tmp_path / "kwsd.yaml"
        source = {} if "streams" in keys else {"source": str(DEMO)}
        config.write_text(yaml.safe_dump({"http": f"{host}:{port}", **source, **keys}))
        daemon, path = start_daemon("--config", config)
        listens(port)
        return Page(daemon, path, "127.0.0.1", port)

    return serve


@pytest.fixture
def token():
    return "correct horse battery staple"


@pytest.fixture
def token_file(tmp_path, token):
    path = tmp_path / "token"
    path.write_text(token)
    path.chmod(0o600)
    return {"token_file": str(path)}
