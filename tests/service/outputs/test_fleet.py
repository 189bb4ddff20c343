"""The fleet's Prometheus configuration, alerts and dashboard, beside three running daemons."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from support import DEMO, ROOT, free_port, listens

FLEET = ROOT / "docs" / "fleet"
ROOMS = ("hall", "kitchen", "attic")


@pytest.fixture
def served(tmp_path):
    """The metrics of three daemons: the labels of each sample, by its name."""
    daemons, ports = [], []
    for name in ROOMS:
        ports.append(free_port())
        config = tmp_path / f"{name}.yaml"
        keys = {
            "name": name,
            "http": f"127.0.0.1:{ports[-1]}",
            "source": str(DEMO),
            "audio": str(tmp_path / f"{name}.audio"),
        }
        config.write_text(json.dumps(keys))
        command = [
            sys.executable,
            "-m",
            "kwsd",
            "run",
            "--config",
            str(config),
            "--socket",
            str(tmp_path / f"{name}.sock"),
        ]
        daemons.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    samples = {}
    for port in ports:
        listens(port)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                for sample in family.samples:
                    samples.setdefault(sample.name, []).append(sample.labels)
                if family.type == "counter":  # which may have counted nothing yet
                    samples.setdefault(f"{family.name}_total", [])
    yield samples
    for daemon in daemons:
        daemon.kill()
        daemon.wait()


def expressions():
    rules = yaml.safe_load((FLEET / "alerts.yml").read_text())["groups"][0]["rules"]
    panels = json.loads((FLEET / "dashboard.json").read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


def test_every_figure_that_is_watched_exists_in_every_room(served):
    watched = {name for one in expressions() for name in re.findall(r"kwsd_\w+", one)}
    assert len(watched) >= 6
    assert watched <= served.keys()
    for name in ("kwsd_deaf_streams", "kwsd_source_up", "kwsd_lag_seconds_bucket"):
        assert {labels["host"] for labels in served[name]} == set(ROOMS)


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")
def test_promtool_accepts_the_configuration_and_the_alerts(tmp_path):
    (tmp_path / "token").write_text("secret")
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(FLEET / name, tmp_path)
    for arguments in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        result = subprocess.run(["promtool", "check", *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr


def test_the_panels_of_the_dashboard_differ_and_do_not_overlap():
    panels = json.loads((FLEET / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
