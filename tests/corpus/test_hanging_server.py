"""A server that accepts and never answers: Ctrl-C ends `kwsd label` at once, and its processes with it."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

pytest.importorskip("aiohttp")


@pytest.mark.parametrize("n_clips", [3, 600], ids=["in threads", "in processes"])
def test_ctrl_c_ends_a_run_that_waits_for_a_server(tmp_path, n_clips):
    asked, connections = threading.Event(), []
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:

        def accept():
            while True:
                try:
                    connections.append(server.accept())
                except OSError:
                    return
                asked.set()

        threading.Thread(target=accept, daemon=True).start()
        port = server.getsockname()[1]
        (tmp_path / "list.txt").write_text("".join(f"http://127.0.0.1:{port}/{n}.wav\n" for n in range(n_clips)))
        command = [sys.executable, "-m", "kwsd", "label", "list.txt", "-o", "out.csv"]
        (tmp_path / "copies").mkdir()
        place = {"cwd": tmp_path, "env": os.environ | {"TMPDIR": str(tmp_path / "copies")}}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **place) as process:
            try:
                assert asked.wait(60)
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=30)
            finally:
                process.kill()
            assert process.returncode == 130
            assert said.splitlines()[-1] == "kwsd: interrupted; the same command continues where it stopped"
        assert not list((tmp_path / "copies").iterdir())
        server.shutdown(socket.SHUT_RDWR)
        for connection, _ in connections:
            connection.close()
