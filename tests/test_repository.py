"""Checks of the repository: the wheel contains only kwsd, and locks, reports and documents are right."""

import hashlib
import json
import re
import subprocess
import sys
import textwrap
import zipfile
from dataclasses import fields

import flit_core.buildapi
import pytest

from kwsd.config import Config, ConfigFile, load_config
from kwsd.protocol.events import event_types
from support import ROOT


def test_the_wheel_contains_only_kwsd_and_its_model(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = flit_core.buildapi.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / name) as wheel:
        names = wheel.namelist()
        [entry_points] = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kwsd"}
    assert {"kwsd/models/ds_tcn.onnx", "kwsd/py.typed", "kwsd/protocol/events.schema.json"} <= set(names)
    page = {f"kwsd/service/outputs/page/{path.name}" for path in (ROOT / "kwsd/service/outputs/page").iterdir()}
    assert "kwsd/service/outputs/page/index.html" in page <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert "kwsd=kwsd.__main__:main" in entry_points


def test_locks_have_versions_and_hashes_and_no_url():
    for path in (ROOT / "locks").glob("*.txt"):
        text = path.read_text()
        assert "://" not in text
        assert "index-url" not in text
        requirements = re.split(r"\n(?=\S)", text.strip())
        assert requirements
        assert all("==" in one and "--hash=sha256:" in one for one in requirements)


def test_the_daemons_environment_has_no_heavy_packages():
    names = set(re.findall(r"^([a-z0-9_.-]+)==", (ROOT / "locks" / "run.txt").read_text(), re.M))
    assert {"numpy", "onnxruntime", "soxr", "pyyaml"} <= names
    assert not names & {"tensorflow", "tensorflow-cpu", "keras", "onnx", "scipy", "onnxruntime-gpu"}


def test_the_changelog_has_an_unreleased_section():
    assert re.search(r"^## Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_reports_belong_to_the_current_models():
    reports = [*(ROOT / "docs" / "results").glob("*/*.json")]
    assert {path.parent.name for path in reports} >= {"ds_tcn", "light_cnn"}
    for path in reports:
        folder = ROOT / ("kwsd/models" if path.parent.name == "ds_tcn" else "models")
        model = (folder / f"{path.parent.name}.onnx").read_bytes()
        assert json.loads(path.read_text())["digest"] == hashlib.sha256(model).hexdigest(), path


def test_the_readmes_figures_are_those_of_the_reports():
    reports = ROOT / "docs" / "results" / "ds_tcn"
    text = (ROOT / "README.md").read_text()
    accuracy = json.loads((reports / "validation.json").read_text())["accuracy"]
    assert f"{100 * accuracy:.1f} %" in text
    situations = json.loads((reports / "home-validation.json").read_text())["day"]
    assert list(situations) == ["quiet", "conversation", "television", "music"]
    for name, one in situations.items():
        assert f"| {one['hours']:g} h of {name} | {100 * one['missed']:.1f} % | {one['false']:g} |" in text


DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_of_a_document_has_a_target(path):
    for target in re.findall(r"\]\((?!http)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_readme_is_short_and_its_make_targets_exist():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    targets = set(re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", text, re.M))
    targets = {name for pair in targets for name in pair if name}
    assert {"run", "test"} <= targets
    assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in targets)


def test_the_documented_configuration_is_the_default(tmp_path):
    [example] = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "configuration.md").read_text(), re.S)
    (tmp_path / "kwsd.yaml").write_text(example)
    assert load_config(tmp_path / "kwsd.yaml", {}) == Config()
    assert set(re.findall(r"^(?:# )?(\w+):", example, re.M)) == {field.name for field in fields(ConfigFile)}


def test_the_documented_examples_are_valid_configurations(tmp_path):
    page, tcp, streams = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "service.md").read_text(), re.S)
    (tmp_path / "page.yaml").write_text(page)
    assert load_config(tmp_path / "page.yaml", {}).http == "127.0.0.1:7311"
    text = (ROOT / "docs" / "home-assistant.md").read_text()
    for example in re.findall(r"```yaml\n\s+(# kwsd.yaml\n.*?)```", text, re.S):
        (tmp_path / "home.yaml").write_text(textwrap.dedent("   " + example))
        config = load_config(tmp_path / "home.yaml", {})
        assert config.mqtt or config.wyoming
    (tmp_path / "tcp.yaml").write_text(tcp)
    assert load_config(tmp_path / "tcp.yaml", {}).tcp == "0.0.0.0:7310"
    (tmp_path / "streams.yaml").write_text(streams)
    assert list(load_config(tmp_path / "streams.yaml", {}).streams) == ["kitchen", "hall", "yard"]


def test_every_event_is_documented():
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert all(f"`{name}`" in text for name in event_types())


@pytest.mark.parametrize("name", ["cost", "peers", "streams", "subscribers", "day", "labelling", "outputs", "gpu"])
def test_a_benchmark_prints_its_usage(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    assert "usage" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_wheel_and_source_would_pass_for_the_package_index(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = [flit_core.buildapi.build_wheel(str(tmp_path)), flit_core.buildapi.build_sdist(str(tmp_path))]
    command = [sys.executable, "-m", "twine", "check", "--strict", *(tmp_path / name for name in names)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("PASSED") == 2
