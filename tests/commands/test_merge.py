"""Events of several daemons, merged by time."""

import json
import subprocess
import sys
import time

import pytest

from kwsd.commands.merge import HOLD_SECONDS, merge
from kwsd.errors import SocketError
from kwsd.protocol.events import Hello, Lagged, Overrun, parse_event
from support import kwsd, serving


def overrun(second, host):
    return Overrun(
        seq=0, boot_id="b", time=f"2026-11-29T12:00:{second:02d}.000Z", host=host, stream="s", lost_seconds=1
    )


def test_events_come_in_the_order_of_their_time():
    one, other = [overrun(n, "one") for n in (1, 4, 5)], [overrun(n, "other") for n in (2, 3, 6)]
    merged = list(merge([lambda: iter(one), lambda: iter(other)]))
    assert [event.time[17:19] for event in merged] == ["01", "02", "03", "04", "05", "06"]


def test_an_event_waits_only_for_a_moment():
    def slow():
        yield overrun(1, "one")
        time.sleep(20)

    began = time.monotonic()
    assert next(merge([slow, slow])).host == "one"
    assert HOLD_SECONDS <= time.monotonic() - began < 5


def test_an_event_without_a_time_comes_at_once():
    def source():
        yield overrun(1, "one")
        yield Lagged(n_lost=3)
        time.sleep(20)

    assert isinstance(next(merge([source])), Lagged)


def test_the_error_of_a_source_is_raised():
    def broken():
        raise SocketError("hall: no daemon")
        yield

    with pytest.raises(SocketError, match="hall: no daemon"):
        list(merge([broken, lambda: iter([overrun(1, "one")])]))


@pytest.fixture
def rooms(tmp_path, write_wav, demo):
    """Two daemons, with names; each hears the beginning of the bundled recording."""
    daemons, recording = [], write_wav("begin.wav", demo[: 12 * 16000])
    for name in ("hall", "kitchen"):
        config, path = tmp_path / f"{name}.yaml", tmp_path / f"{name}.sock"
        config.write_text(json.dumps({"name": name, "source": str(recording)}))
        command = [sys.executable, "-m", "kwsd", "run", "--config", str(config), "--socket", str(path)]
        daemons.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        serving(path, daemons[-1])
    yield [tmp_path / f"{name}.sock" for name in ("hall", "kitchen")]
    for daemon in daemons:
        daemon.kill()
        daemon.communicate()


def test_listen_merges_two_daemons_and_resumes_each(rooms):
    addresses = [option for path in rooms for option in ("--socket", path)]
    result = kwsd("listen", "--json", "--once", *addresses)
    events = [parse_event(line) for line in result.stdout.splitlines()]
    hellos = {event.host: event for event in events if isinstance(event, Hello)}
    assert hellos.keys() == {"hall", "kitchen"}
    numbered = [event for event in events if hasattr(event, "seq")]
    assert {event.host for event in numbered} == {"hall", "kitchen"}
    assert [event.time for event in numbered] == sorted(event.time for event in numbered)


def test_listen_replays_each_daemon_from_its_own_position(rooms):
    hellos = [parse_event(kwsd_first_line(path)) for path in rooms]
    time.sleep(5)  # meanwhile both hear something
    since = [option for hello in hellos for option in ("--since", f"{hello.boot_id}:{hello.next_seq - 1}")]
    command = [sys.executable, "-m", "kwsd", "listen", "--json", *since]
    command += [str(option) for path in rooms for option in ("--socket", path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        missed = {}
        while len(missed) < 2:
            event = parse_event(listening.stdout.readline())
            if hasattr(event, "seq"):
                missed.setdefault(event.host, event.seq)
        listening.kill()
    assert missed == {hello.host: hello.next_seq for hello in hellos}


def kwsd_first_line(path):
    command = [sys.executable, "-m", "kwsd", "listen", "--json", "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as listening:
        line = listening.stdout.readline()
        listening.kill()
    return line
