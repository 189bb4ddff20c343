"""Clips: recordings of detections, also when the disk is full."""

import errno
import json
import os
import shutil
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
import soundfile

import kwsd.service.outputs.clips
from kwsd.client import subscribe
from kwsd.config import ClipsConfig
from kwsd.errors import OutputError
from kwsd.protocol.events import DetectionEvent, NearMiss, parse_event
from kwsd.service.outputs.clips import Clips, Ended, Piece
from support import kwsd as run_kwsd


def event(seq=1, end=3.0, stream="a"):
    return DetectionEvent(
        seq=seq, boot_id="b", time=f"2026-11-22T22:20:{seq:02d}.000Z", stream=stream, label="stop", score=0.9,
        start_seconds=end - 1, end_seconds=end, loudness_dbfs=-20.0,
    )  # fmt: skip


def piece(first, n=1000, rate_hz=1000, stream="a"):
    """A second in which the value of each sample is its position."""
    return Piece(stream, rate_hz, first / rate_hz, ((first + np.arange(n)) / 32768).astype(np.float32))


def keep(folder, items, window_seconds=1.0, **keys):
    clips = Clips(ClipsConfig(folder, **keys), lambda: window_seconds)
    clips.start()
    for item in items:
        clips.put(item)
    clips.stop()
    return sorted(folder.glob("*.wav"))


def positions(path):
    samples, _ = soundfile.read(path, dtype="int16")
    return int(samples[0]), int(samples[-1])


def test_a_clip_contains_the_window_and_the_audio_around_it(tmp_path):
    items = [*(piece(n * 1000) for n in range(3)), event(), *(piece(n * 1000) for n in range(3, 6))]
    [path] = keep(tmp_path, items, before_seconds=0.5, after_seconds=0.25)
    assert positions(path) == (1500, 3249)
    assert path.name == "20261122T222001.000Z_a_stop_1.wav"
    assert parse_event(path.with_suffix(".json").read_text()) == event()


def test_a_clip_contains_all_of_a_long_window(tmp_path):
    long = replace(event(end=10.0), start_seconds=1.0)
    items = [*(piece(n * 1000) for n in range(11)), long]
    [path] = keep(tmp_path, items, window_seconds=9.0, before_seconds=0.5, after_seconds=0.25)
    assert positions(path) == (500, 10249)


@pytest.mark.parametrize("is_kept", [True, False])
def test_near_misses_have_clips_only_if_the_configuration_says_so(tmp_path, is_kept):
    near = NearMiss(
        seq=1, boot_id="b", time="2026-11-22T22:20:01.000Z", stream="a", label="stop", score=0.9, threshold=0.95,
        start_seconds=2.0, end_seconds=3.0,
    )  # fmt: skip
    paths = keep(tmp_path, [*(piece(n * 1000) for n in range(5)), near], near_misses=is_kept)
    assert [parse_event(path.with_suffix(".json").read_text()) for path in paths] == [near] * is_kept


def test_a_clip_does_not_wait_for_audio_that_cannot_arrive(tmp_path):
    """If a stream ends or jumps to another position, its clip contains the available audio."""
    broken = [piece(0), piece(1000), piece(2000), event(), piece(9000), piece(10000), event(2, 11.0)]
    first, second = keep(tmp_path, broken, before_seconds=5.0)
    assert positions(first) == (0, 2999)
    assert positions(second) == (9000, 10999)


def test_the_clip_of_an_ended_stream_is_written_and_the_stream_dropped(tmp_path):
    clips = Clips(ClipsConfig(tmp_path), lambda: 1.0)
    clips.start()
    for item in (piece(0), Ended("a"), event(1, 1.0)):
        clips.put(item)
    deadline = time.monotonic() + 5
    while not list(tmp_path.glob("*.wav")) or clips._streams:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    clips.stop()


def test_a_stream_whose_end_was_lost_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(kwsd.service.outputs.clips, "_FORGOTTEN_SECONDS", 1.0)
    clips = Clips(ClipsConfig(tmp_path), lambda: 1.0)
    clips.start()
    clips.put(piece(0))
    clips.put(event(1, 1.0, stream="b"))  # it came after its stream was dropped
    deadline = time.monotonic() + 10
    while len(clips._streams) < 2:
        assert time.monotonic() < deadline
    while clips._streams:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    clips.stop()


def test_other_files_in_the_folder_are_kept(tmp_path):
    mine = tmp_path / "grandma.wav"
    mine.write_bytes(bytes(50_000))
    os.utime(mine, (0, 0))
    items = [item for n in range(9) for item in (piece(n * 1000), event(n, n + 1.0))]
    assert mine in keep(tmp_path, items, max_megabytes=0.01)


def test_an_event_whose_audio_is_gone_makes_no_clip(tmp_path):
    assert keep(tmp_path, [piece(9000), event(1, 3.0)]) == []


def test_streams_do_not_mix(tmp_path):
    items = [piece(0), piece(0, stream="b/../c"), piece(1000), event(), event(2, 1.0, "b/../c"), piece(2000)]
    first, second = keep(tmp_path, [*items, piece(3000), piece(1000, stream="b/../c")])
    assert positions(first) == (1000, 3499)
    assert second.name.endswith("_b____c_stop_2.wav")
    assert second.parent == tmp_path


def test_the_oldest_clips_are_deleted_when_the_folder_is_too_large(tmp_path):
    items = [item for n in range(20) for item in (piece(n * 1000), event(n, n + 1.0))]
    kept = keep(tmp_path, items, max_megabytes=0.02, before_seconds=0, after_seconds=0)
    sizes = [path.stat().st_size for path in kept]
    assert 5 <= len(kept) < 20
    assert sum(sizes) <= 20000
    assert kept[-1].name.endswith("_19.wav")
    assert {path.stem for path in tmp_path.glob("*.json")} == {path.stem for path in kept}


def test_clips_that_are_too_old_are_deleted(tmp_path):
    old = keep(tmp_path, [piece(0), event(1, 1.0)])[0]
    os.utime(old, (0, 0))
    [new] = keep(tmp_path, [piece(0), event(2, 1.0)])
    assert new.name.endswith("_2.wav")


def test_after_a_clock_is_set_back_old_clips_are_deleted_not_new_ones(tmp_path):
    options = {"max_megabytes": 0.02, "before_seconds": 0, "after_seconds": 0}
    items = [item for n in range(5) for item in (piece(n * 1000), event(n, n + 1.0))]
    future = time.time() + 86400
    for path in keep(tmp_path, items, **options):
        os.utime(path, (future, future))
    kept = keep(tmp_path, [piece(0), event(9, 1.0)], **options)
    assert any(path.name.endswith("_9.wav") for path in kept)


def test_a_folder_that_fails_for_a_while_loses_only_the_clips_of_that_time(tmp_path, monkeypatch, caplog):
    clips = Clips(ClipsConfig(tmp_path), lambda: 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Clips, "_ours", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        clips.start()
        clips.put(piece(0))
        clips.put(event(1, 1.0))
        deadline = time.monotonic() + 10
        while "old clips cannot be removed (Input/output error)" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
    clips.put(piece(1000))
    clips.put(event(2, 2.0))
    clips.stop()
    assert "cannot be removed" in caplog.text
    assert any(path.name.endswith("_2.wav") for path in tmp_path.iterdir())


def test_unfinished_and_old_clips_are_deleted_even_without_a_new_clip(tmp_path):
    old = keep(tmp_path, [piece(0), event(1, 1.0)])[0]
    os.utime(old, (0, 0))
    name = old.stem.replace("_1", "_2")
    for left in (f"{name}.json", f"{name}.wav.part", f"{name}.json.part", "notes.json", "mine.part"):
        (tmp_path / left).write_text("{")
    clips = Clips(ClipsConfig(tmp_path), lambda: 1.0)
    clips.start()
    clips.put(piece(0))
    clips.stop()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.part", "notes.json"]


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="absent: No such file or directory; create this folder"):
        Clips(ClipsConfig(tmp_path / "absent"), lambda: 1.0)


def test_the_daemon_writes_a_clip_of_each_detection(start_daemon, tmp_path, few_seconds_wav):
    folder = tmp_path / "clips"
    folder.mkdir()
    config = tmp_path / "kwsd.yaml"
    config.write_text(json.dumps({"source": str(few_seconds_wav), "clips": {"folder": str(folder)}}))
    daemon, _ = start_daemon("--config", config)
    assert daemon.wait(30) == 0
    labels = [parse_event(path.read_text()).label for path in sorted(folder.glob("*.json"))]
    assert labels == ["down", "on"]
    heard = [run_kwsd("spot", path, "--json").stdout for path in sorted(folder.glob("*.wav"))]
    for label, out in zip(labels, heard, strict=True):
        assert f'"label":"{label}"' in out


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("mount"), reason="only root can mount a small disk")
def test_a_full_disk_loses_clips_but_no_events(start_daemon, tmp_path, few_seconds_wav):
    folder = tmp_path / "disk"
    folder.mkdir()
    small = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    if subprocess.run(small, capture_output=True).returncode:
        pytest.skip("not allowed to mount")
    try:
        config = tmp_path / "kwsd.yaml"
        config.write_text(json.dumps({"source": str(few_seconds_wav), "clips": {"folder": str(folder)}}))
        daemon, path = start_daemon("--config", config)
        heard = [event.label for event in subscribe(path, reconnect=False) if isinstance(event, DetectionEvent)]
        assert daemon.wait(20) == 0
        log = daemon.stderr.read()
        assert heard == ["down", "on"]
        assert "has no clip (No space left on device)" in log
        assert "Traceback" not in log
        assert not list(folder.iterdir())
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_no_clips_are_written_by_default(tmp_path, few_seconds_wav):
    command = ("run", "--source", few_seconds_wav, "--fast", "--socket", tmp_path / "k.sock")
    assert run_kwsd(*command, cwd=tmp_path).returncode == 0
    assert not list(tmp_path.glob("**/*.wav"))


def test_other_users_cannot_read_clips(tmp_path):
    old_umask = os.umask(0)
    try:
        [path] = keep(tmp_path, [piece(0), piece(1000), piece(2000), event()])
    finally:
        os.umask(old_umask)
    for kept in (path, path.with_suffix(".json")):
        assert kept.stat().st_mode & 0o777 == 0o640


def test_a_link_that_somebody_planted_is_not_followed(tmp_path):
    victim, folder = tmp_path / "victim", tmp_path / "clips"
    folder.mkdir()
    for name in (".kwsd-probe", "20261122T222001.000Z_a_stop_1.wav.part"):
        (folder / name).symlink_to(victim)
    keep(folder, [piece(0), piece(1000), piece(2000), event()])
    assert not victim.exists()


def test_on_a_full_disk_the_newest_clips_are_kept(tmp_path, monkeypatch, caplog):
    keep(tmp_path, [piece(0), piece(1000), piece(2000), event()])
    write = kwsd.service.outputs.clips._write_private

    def full(path, content):
        if len(list(tmp_path.glob("*.wav"))) >= 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(kwsd.service.outputs.clips, "_write_private", full)
    kept = keep(tmp_path, [item for n in range(2, 5) for item in (piece(0), piece(1000), piece(2000), event(n))])
    assert [path.name[-5] for path in kept] == ["3", "4"]
    assert "the disk is full; removed the oldest 1" in caplog.text


def test_clips_that_are_removed_for_their_age_leave_a_log_line(tmp_path, caplog):
    [old] = keep(tmp_path, [piece(0), piece(1000), piece(2000), event()])
    os.utime(old, (0, 0))
    with caplog.at_level("INFO", "kwsd"):
        keep(tmp_path, [piece(0), piece(1000), piece(2000), event(2)])
    assert "clips: removed 1 that are older than" in caplog.text
