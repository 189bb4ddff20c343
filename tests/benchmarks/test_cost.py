"""The benchmark prints every line, on a small scale. The test does not judge the figures."""

import re

import pytest

import benchmarks.cost
from benchmarks.cost import bench


@pytest.mark.slow
def test_every_line_has_its_figures(monkeypatch):
    for name, value in (("_SECONDS", 2), ("_LIVE_SECONDS", 1), ("_ROUNDS", 1), ("_MANY", 3), ("_CLIPS_PER_CORE", 320)):
        monkeypatch.setattr(benchmarks.cost, name, value)
    text = "\n".join(bench(None, "cpu"))
    assert text.startswith("ds_tcn on CPUExecutionProvider, 10 keywords")
    for pattern in (
        r"a decision every 100 ms +\d+\.\d\d +\d+ streams",
        r"the same, sleeping between strides +\d+\.\d\d\n",
        r"a decision every 20 ms +\d+\.\d\d +\d+ streams",
        r"3 streams side by side, each +\d+\.\d\d +\d+ streams",
        r"\d+ one-second clips labelled per second",
        r"\d+\.\d\d s from the start of a daemon until it accepts audio",
    ):
        assert re.search(pattern, text), pattern
    shares = re.search(r"front end (\d+)%, model (\d+)%, decision (\d+)%, other Python code (\d+)%", text)
    *stages, _ = map(int, shares.groups())
    assert min(stages) > 0
