"""What the repository promises about itself: imports go one way, the wheel ships kwsd alone."""

import ast
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from dataclasses import fields

import flit_core.buildapi
import pytest

from kwsd.config import Config, load_config
from support import ROOT

HEAVY = {"tensorflow", "keras", "tf2onnx", "onnx", "scipy", "matplotlib"}
MAY_NOT_IMPORT = {
    "kwsd": {"train", "export", "demo", "benchmarks", "tests"} | HEAVY,
    "train": {"export", "demo", "tests", "tensorflow", "tf2onnx", "onnx", "scipy"},
    "export": {"demo", "tests", "scipy"},
    "demo": {"train", "export", "tests"} | HEAVY,
}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_NOT_IMPORT)
def test_imports_go_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        wrong = set(imported(path)) & MAY_NOT_IMPORT[package]
        assert not wrong, f"{path} imports {wrong}"


def test_the_wheel_ships_kwsd_alone_with_its_model(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = flit_core.buildapi.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / name) as wheel:
        names = wheel.namelist()
        [entry_points] = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"kwsd"}
    assert "kwsd/models/ds_tcn.onnx" in names
    assert not [name for name in names if "__pycache__" in name]
    assert "kwsd=kwsd.__main__:main" in entry_points


def test_locks_carry_versions_and_hashes_and_no_address():
    for path in (ROOT / "locks").glob("*.txt"):
        text = path.read_text()
        assert "http" not in text
        assert "index-url" not in text
        requirements = re.split(r"\n(?=\S)", text.strip())
        assert requirements
        assert all("==" in one and "--hash=sha256:" in one for one in requirements)


def test_the_daemons_environment_is_light():
    names = set(re.findall(r"^([a-z0-9_.-]+)==", (ROOT / "locks" / "run.txt").read_text(), re.M))
    assert {"numpy", "onnxruntime", "soxr", "pyyaml"} <= names
    assert not names & (HEAVY | {"tensorflow-cpu", "onnxruntime-gpu"})


def test_the_changelog_has_an_unreleased_head():
    assert re.search(r"^## Unreleased$", (ROOT / "CHANGELOG.md").read_text(), re.M)


def test_reports_are_about_the_models_that_are_there():
    reports = [*(ROOT / "docs" / "results").glob("*/*.json")]
    assert {path.parent.name for path in reports} >= {"ds_tcn", "light_cnn"}
    for path in reports:
        folder = ROOT / ("kwsd/models" if path.parent.name == "ds_tcn" else "models")
        model = (folder / f"{path.parent.name}.onnx").read_bytes()
        assert json.loads(path.read_text())["digest"] == hashlib.sha256(model).hexdigest(), path


def test_what_the_readme_refers_to_is_there():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (ROOT / target).exists(), target
    targets = set(re.findall(r"`make (\w+)", text))
    assert {"run", "test"} <= targets
    assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in targets)


def test_the_readmes_configuration_is_the_default(tmp_path):
    tcp, streams, example = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "tcp.yaml").write_text(tcp)
    assert load_config(tmp_path / "tcp.yaml", {}).tcp == "0.0.0.0:7310"
    (tmp_path / "streams.yaml").write_text(streams)
    assert load_config(tmp_path / "streams.yaml", {}).streams == ["kitchen", "hall", "yard"]
    (tmp_path / "kwsd.yaml").write_text(example)
    assert load_config(tmp_path / "kwsd.yaml", {}) == Config()
    assert set(re.findall(r"^(?:# )?(\w+):", example, re.M)) == {field.name for field in fields(Config)}


@pytest.mark.parametrize("name", ["peers", "streams", "subscribers", "day", "labelling"])
def test_a_benchmark_says_how_it_is_used(name):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--help"]
    assert "usage" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
