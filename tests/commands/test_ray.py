"""Ray labels each clip once, and as the pool does, whatever is lost on the way."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import kwsd.commands.label as label
from kwsd.commands.label import label_corpus
from kwsd.corpus.folder import Folder
from kwsd.errors import OutputError
from support import kwsd

pytest.importorskip("ray")


@pytest.fixture
def clips(tmp_path, write_wav, demo):
    first = [write_wav(f"clips/{n:04}.wav", demo[n * 9000 :][:16000]) for n in range(20)]
    for n in range(20, 400):
        os.link(first[n % 20], tmp_path / "clips" / f"{n:04}.wav")
    (tmp_path / "clips" / "broken.wav").write_text("not audio")
    return tmp_path / "clips"


def test_ray_has_the_labels_of_the_pool(clips, tmp_path, model):
    label_corpus(Folder(clips), tmp_path / "pool.csv", model, tmp_path / "pool-scores.csv")
    scores = tmp_path / "scores.csv"
    result = kwsd("label", clips, "-o", tmp_path / "ray.csv", "--scores", scores, "--ray", "local", timeout=180)
    assert result.returncode == 1
    assert "broken.wav: not a readable recording" in result.stderr
    assert "400 clips labelled in" in result.stdout
    assert (tmp_path / "ray.csv").read_text() == (tmp_path / "pool.csv").read_text()
    assert scores.read_text() == (tmp_path / "pool-scores.csv").read_text()
    assert not list(tmp_path.glob("*.ledger"))


def test_without_a_cluster_one_line_says_so(clips, tmp_path):
    result = kwsd("label", clips, "-o", tmp_path / "ray.csv", "--ray", "127.0.0.1:1", timeout=180)
    assert result.returncode == 1
    assert "kwsd: --ray 127.0.0.1:1: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "ray.csv").exists()


class _Deadly(Folder):
    """A folder in which reading one clip ends the process, as long as there is a file `deadly`."""

    def read(self, clips):
        if (self.root / "deadly").exists() and any(clip.path == b"0200.wav" for clip in clips):
            os._exit(3)
        return super().read(clips)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_job_that_no_worker_survives_is_given_up_and_the_rest_is_labelled(clips, tmp_path, model, monkeypatch):
    monkeypatch.setattr(label, "JOB_CLIPS", 40)
    (clips / "deadly").touch()
    with pytest.raises(
        OutputError, match=r"--ray: no worker can be started \(.*No module named.*\); each machine needs this kwsd"
    ):
        label_corpus(_Deadly(clips), tmp_path / "s.csv", model, ray="local")
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).parent}:{Path(__file__).parents[1]}")
    summary = label_corpus(_Deadly(clips), tmp_path / "s.csv", model, ray="local")
    assert (summary.counts.total(), summary.n_left) == (360, 40)
    assert any("lost with their workers" in line for line in summary.complaints(Folder(clips), tmp_path / "s.csv"))
    (clips / "deadly").unlink()
    summary = label_corpus(_Deadly(clips), tmp_path / "s.csv", model)
    assert (summary.n_before, summary.counts.total(), summary.n_left) == (360, 400, 0)


@pytest.mark.slow
def test_a_node_that_is_lost_costs_nothing(clips, tmp_path, model):
    for n in range(400, 12000):
        os.link(clips / f"{n % 20:04}.wav", clips / f"{n:05}.wav")
    label_corpus(Folder(clips), tmp_path / "pool.csv", model, tmp_path / "pool-scores.csv")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    ray = Path(sys.executable).with_name("ray")
    start = [ray, "start", "--num-cpus=1", "--block"]
    quiet = {"env": environment, "cwd": "/", "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    head = subprocess.Popen([*start, "--head", f"--port={address.split(':')[1]}", "--include-dashboard=false"], **quiet)
    _wait_for_nodes(1, ray, address, environment)
    node = subprocess.Popen([*start, f"--address={address}"], **quiet)
    _wait_for_nodes(2, ray, address, environment)
    command = [
        sys.executable,
        "-m",
        "kwsd",
        "label",
        "clips",
        "-o",
        "ray.csv",
        "--scores",
        "scores.csv",
        "--ray",
        address,
    ]
    labelling = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        while len(_workers()) < 2 and labelling.poll() is None:
            time.sleep(0.2)
        time.sleep(1)
        assert labelling.poll() is None
        node.kill()
        assert labelling.wait(300) == 1  # one clip is broken
    finally:
        for process in (labelling, node, head):
            process.terminate()
            process.wait()
    assert (tmp_path / "ray.csv").read_text() == (tmp_path / "pool.csv").read_text()
    assert (tmp_path / "scores.csv").read_text() == (tmp_path / "pool-scores.csv").read_text()


def _wait_for_nodes(n_nodes, ray, address, environment):
    for _ in range(60):
        command = [ray, "status", f"--address={address}"]
        status = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout
        if status.count(" node_") >= n_nodes:
            return
        time.sleep(1)
    raise AssertionError(status)


def _workers():
    """The processes of Ray that label."""
    lines = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in lines if "MapWorker" in line]
