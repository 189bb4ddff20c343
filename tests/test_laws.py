"""Laws of the code: allowed imports, light imports, and limits on the size of folders, files and functions."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from support import ROOT

HEAVY = {"tensorflow", "keras", "tf2onnx", "onnx", "scipy", "matplotlib"}
PACKAGES = {
    "kwsd": {"train", "export", "demo", "benchmarks", "tests"} | HEAVY,
    "train": {"export", "demo", "tests", "tensorflow", "tf2onnx", "onnx", "scipy"},
    "export": {"demo", "tests", "scipy"},
    "demo": {"train", "export", "tests"} | HEAVY,
}
"""For each package: the modules that it must not import."""

LEARNING = {"onnx", "scipy"}
"""What only `kwsd.learn` may import besides, which no daemon loads."""

ROOMS = {
    "core": {"audio", "errors", "typed", "core"},
    "protocol": {"errors", "plain", "typed", "protocol"},
    "sources": {"audio", "config", "errors", "typed", "sources"},
    "service": {"__version__", "audio", "config", "errors", "limits", "marks", "plain", "typed", "workers"}
    | {"core", "protocol", "sources", "service"},
    "corpus": {"corpus", "errors", "files", "workers"},
    "learn": {"audio", "core", "errors", "files", "learn", "sources"},
    "typed": set(),
    "errors": set(),
    "audio": {"typed"},
    "config": {"audio", "errors", "typed", "protocol", "yaml_file"},
    "files": set(),
    "limits": set(),
    "marks": {"errors", "files"},
    "plain": set(),
    "yaml_file": {"errors"},
    "workers": set(),
    "client": {"errors", "plain", "protocol"},
}
"""For each subpackage or module of kwsd: the parts of kwsd that it may import."""

NO_IO = {"asyncio", "threading", "socket", "time", "logging", "subprocess", "selectors", "multiprocessing"}


def imports(path: Path):
    """The full names of all modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def python_files(*folders: str) -> list[Path]:
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert files
    return files


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_in_one_direction(package):
    for path in python_files(package):
        allowed = LEARNING if path.parent == ROOT / "kwsd" / "learn" else set()
        wrong = {name.partition(".")[0] for name in imports(path)} & PACKAGES[package] - allowed
        assert not wrong, f"{path} imports {wrong}"


@pytest.mark.parametrize("room", ROOMS)
def test_parts_of_kwsd_import_in_one_direction(room):
    place = ROOT / "kwsd" / room
    for path in python_files(f"kwsd/{room}") if place.is_dir() else [place.with_suffix(".py")]:
        of_kwsd = {name.split(".")[1] for name in imports(path) if name.startswith("kwsd.")}
        assert of_kwsd <= ROOMS[room], f"{path} imports {of_kwsd - ROOMS[room]}"


def test_the_core_has_no_io():
    for path in python_files("kwsd/core"):
        wrong = {name.partition(".")[0] for name in imports(path)} & NO_IO
        assert not wrong, f"{path} imports {wrong}"


def test_in_the_core_only_model_and_runtime_open_a_file():
    def opens(node):
        function = getattr(node, "func", None)
        name = getattr(function, "id", None) or getattr(function, "attr", None)
        return name in {"open", "read_text", "read_bytes", "write_text", "write_bytes", "InferenceSession"}

    opening = {
        path.stem for path in python_files("kwsd/core") if any(map(opens, ast.walk(ast.parse(path.read_text()))))
    }
    assert opening <= {"model", "runtime"}
    assert "runtime" in opening  # the check does find code that opens files


def test_the_protocol_uses_only_the_standard_library():
    for path in (*python_files("kwsd/protocol"), ROOT / "kwsd" / "typed.py", ROOT / "kwsd" / "errors.py"):
        wrong = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"kwsd"}
        assert not wrong, f"{path} imports {wrong}"


def loaded(module: str) -> set[str]:
    """The modules in memory after an import in a new process."""
    code = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_a_subscribers_program_loads_neither_numpy_nor_yaml():
    modules = loaded("kwsd.client")
    assert "kwsd.protocol.events" in modules
    assert not modules & {"numpy", "yaml", "onnxruntime", "soxr"}


def test_the_decision_loads_no_onnx_runtime():
    modules = loaded("kwsd.core.decision")
    assert "numpy" in modules
    assert "onnxruntime" not in modules


def test_importing_the_daemon_loads_no_optional_modules():
    modules = loaded("kwsd.service.daemon")
    assert "onnxruntime" in modules
    optional = {"prometheus_client", "sounddevice", "starlette", "uvicorn", "aiomqtt", "paho", "wyoming", "zeroconf"}
    optional |= {f"kwsd.service.outputs.{path.stem}" for path in python_files("kwsd/service/outputs")}
    optional -= {"kwsd.service.outputs.make", "kwsd.service.outputs.__init__"}
    of_commands = {"tqdm", "sqlite3", "kwsd.commands.label"}
    assert not modules & (optional | of_commands | HEAVY | {"soundfile"})


def test_label_loads_ray_and_what_other_corpora_need_only_for_them():
    modules = loaded("kwsd.commands.label, kwsd.corpus.open")
    assert "kwsd.commands.jobs" in modules
    assert not modules & {"ray", "pyarrow", "pandas", "fsspec", "s3fs"}


def test_a_daemon_imports_only_the_sources_that_it_reads():
    make = "from kwsd.config import StreamConfig; from kwsd.sources.base import make_source"
    code = f"import sys; {make}; make_source(StreamConfig(source='-')); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "kwsd.sources.pcm" in modules
    assert not {"kwsd.sources.wav", "kwsd.sources.microphone", "soundfile"} & set(modules)


def functions(path: Path):
    """Name and length in lines of each function in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.name}: {node.name}", node.end_lineno - node.lineno + 1


def test_folders_files_and_functions_stay_small():
    product = python_files("kwsd", "train", "export")
    files = [*product, *python_files("tests", "benchmarks", "demo")]
    side_by_side = Counter(path.parent for path in files if path.name != "__init__.py")
    assert max(side_by_side.values()) <= 14, side_by_side.most_common(1)
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    assert max(lengths.values()) <= 300, max(lengths, key=lengths.get)
    spans = dict(one for path in product for one in functions(path))
    assert max(spans.values()) <= 50, max(spans, key=spans.get)
