"""Text from outside is shown without effect on the terminal or on the number of lines."""

import subprocess
import sys

import pytest

from kwsd.errors import ConfigError
from kwsd.plain import plain
from kwsd.protocol.events import DetectionEvent, Goodbye, Hello
from kwsd.protocol.text import readable
from kwsd.yaml_file import read_yaml
from support import kwsd

FORGED = "\x1b[31mX\nFAKE\r\x9b\u2028\u202e\x7f\0"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("Küche, 東京", "Küche, 東京"), ("a\x1b[31m\nb", r"a\x1b[31m\nb"), ("\ud800\0", r"\ud800\x00")],
)  # fmt: skip
def test_only_what_is_not_printable_is_escaped(text, shown):
    assert plain(text) == shown


@pytest.mark.parametrize(
    "event",
    [
        Goodbye(reason=FORGED, heard_seconds=1.0),
        Hello(protocol=1, boot_id="b", next_seq=0, streams=[], labels=[FORGED], model=FORGED, provider=FORGED),
        DetectionEvent(stream=FORGED, label=FORGED, score=1.0, start_seconds=0, end_seconds=1, loudness_dbfs=-20),
    ],
)
def test_an_event_is_one_printable_line(event):
    assert readable(event).isprintable()


def test_a_log_line_cannot_forge_another():
    code = (
        "import logging; from kwsd.service.systemd import start_log; start_log(); logging.info('%s', 'a\\n\\x1b[31mb')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.endswith("INFO a\\n\\x1b[31mb\n")


def test_one_place_cannot_fill_the_log():
    code = """
from kwsd.service import systemd
systemd.start_log()
for n in range(2000):
    systemd.logging.warning("line %d", n)
systemd.logging.warning("another")
systemd.time.sleep(1.1)
for n in range(2):
    systemd.logging.info("again")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = result.stderr.splitlines()
    assert 500 <= sum("line" in line for line in lines) <= 510
    assert lines[-3].endswith("another")


def test_check_shows_a_key_escaped(tmp_path):
    path = tmp_path / "kwsd.yaml"
    path.write_text('"bad\\ekey": 3\n')
    result = kwsd("check", "--config", path)
    assert r"bad\x1bkey: unknown key" in result.stdout


BOMB = "k0: &k0 {p: x}\n" + "".join(f"k{n}: &k{n} {{<<: [*k{n - 1}, *k{n - 1}]}}\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, r"\*k0 is an alias; write out what it stands for"),
        ("threshold: !!int ''", "not YAML"),
        ("threshold: !!timestamp x", "not YAML"),
        ("stream: !!bool maybe", "not YAML"),
        (f"threshold: {'1:' * 4000}1.5", "not YAML"),
    ],
)
def test_strange_yaml_is_refused_in_one_line(tmp_path, text, problem):
    path = tmp_path / "kwsd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as refused:
        read_yaml(path)
    assert len(str(refused.value)) < 500
