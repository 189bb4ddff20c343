"""Thresholds from audio of the user's own room: they meet the budget; too little audio is reported."""

import json
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from kwsd.commands.calibrate import calibrate, check_marks, describe, refuse_existing, save_thresholds
from kwsd.config import load_config
from kwsd.core.calibration import Calibration, Keyword, _choose, choose_thresholds, trade_off
from kwsd.core.spotter import Spotter
from kwsd.core.sweep import GRID
from kwsd.errors import AudioError, ConfigError
from kwsd.marks import marked_in
from support import DEMO, ROOT


def test_calibrate_counts_what_the_spotter_would_detect(model):
    """The demo contains keywords, so as audio of a room it gives many false accepts."""
    calibration = calibrate([DEMO], model, 600.0)
    spotter = Spotter(model, 16000, thresholds=calibration.thresholds)
    from kwsd.sources.recording import read_recording

    samples, _ = read_recording(DEMO)
    fired = [one.label for one in spotter.push(samples)]
    assert sorted(fired) == sorted(one.label for one in calibration.keywords for _ in range(one.n_false))


def test_a_smaller_budget_asks_for_higher_thresholds(model):
    loose, tight = (calibrate([DEMO], model, budget).thresholds for budget in (600.0, 0.5))
    assert all(tight[label] > loose[label] for label in loose)


def test_rates_are_counted_or_extrapolated_from_few_events():
    """A thousand false accepts an hour at the lowest threshold, falling by 14 % a step."""
    steps, random = np.arange(100), np.random.default_rng(0)
    true_rates = 1000 * np.exp(-0.15 * steps)
    chosen = {20.0: [], 0.1: []}
    for _ in range(100):
        scores = random.exponential(1 / 0.15, random.poisson(1000))
        n_false = np.array([np.count_nonzero(scores >= step) for step in steps])
        for budget, rates_there in chosen.items():
            step, basis = _choose(steps, n_false, budget, 1.0)
            assert basis == ("extrapolated" if budget < 10 else "counted")
            rates_there.append(true_rates[step])
    assert np.median(chosen[20.0]) == pytest.approx(20, rel=0.2)
    assert np.median(chosen[0.1]) == pytest.approx(0.1, rel=0.4)
    assert np.quantile(chosen[0.1], 0.95) < 0.5  # the precision that one hour of audio allows


def test_silence_does_not_lower_thresholds(model, write_wav):
    random = np.random.default_rng(0)
    hiss = write_wav("hiss.wav", 1e-4 * random.standard_normal(16000 * 20))
    calibration = calibrate([hiss], model, 0.5)
    lines = list(describe(calibration))
    assert "too little audio to show 0.5 an hour: that takes 6.0 hours" in lines[-1]
    own = model.card.decision.thresholds
    assert calibration.thresholds == own


@pytest.mark.parametrize("hours", [0.1, 9.9, 10.0, 100.0])
def test_hours_without_events_keep_the_thresholds(hours):
    steps = np.arange(-43, 50)
    assert _choose(steps, np.zeros(len(steps), int), 1.0, hours) == (0, "kept")
    few = np.where(steps < -20, 8, 0)  # false accepts, but only far below the threshold
    assert _choose(steps, few, 10.0 / hours, hours) == (0, "kept")


def test_misses_of_another_grid_are_not_known(model):
    card = replace(model.card, results={"missed": {label: [0.1] for label in model.card.keywords}})
    counts = np.zeros((len(GRID), len(card.labels)), int)
    assert choose_thresholds(card, counts, 1.0, 1.0).missed is None
    assert trade_off(card, counts, 1.0) == []


def test_a_budget_that_every_threshold_keeps_changes_nothing():
    steps = np.arange(-43, 50)
    assert _choose(steps, np.where(steps < 5, 80, 30), 0.5, 200.0) == (0, "kept")


def test_many_counted_events_can_lower_thresholds():
    steps = np.arange(-43, 50)
    n_false = np.where(steps < -5, 500, 20)
    assert _choose(steps, n_false, 1.0, 24.0) == (-5, "counted")
    assert _choose(steps, np.full(len(steps), 500), 1.0, 24.0) == (49, "counted")
    assert _choose(steps, np.full(len(steps), 500), 1.0, 1.0) == (49, "counted")


def test_above_the_last_event_nothing_is_extrapolated():
    steps = np.arange(-43, 50)
    assert _choose(steps, np.where(steps < 6, 60, 0), 0.5, 4.0) == (6, "counted")  # one sound, repeated


def test_only_time_with_decisions_counts(model, write_wav, noise):
    short = [write_wav(f"{n}.wav", noise[:14400]) for n in range(3)]  # 0.9 s: no window fits
    assert calibrate(short, model, 0.5).hours == 0
    two_seconds = write_wav("two.wav", np.resize(noise, 32000))
    twice = [two_seconds, two_seconds.parent / "." / two_seconds.name]
    assert calibrate(twice, model, 0.5).hours * 3600 == pytest.approx(1.1, abs=0.11)


def test_a_budget_that_cannot_be_met_is_reported():
    loud = [Keyword("yes", float(round(GRID[-1], 7)), 30, None)]
    assert "even the highest thresholds" in list(describe(Calibration(loud, 0.5, 30.0, "counted")))[-1]
    fine = [Keyword("yes", 0.9, 10, None)]
    assert "highest" not in " ".join(describe(Calibration(fine, 0.5, 30.0, "counted")))
    assert "the model's own" in list(describe(Calibration(fine, 0.5, 30.0, "kept")))[-1]
    deaf = [Keyword("yes", 0.9999, 0, 0.95), Keyword("no", 0.9999, 0, 0.9)]
    assert "most keywords are missed" in list(describe(Calibration(deaf, 0.5, 30.0, "counted")))[-1]


def test_mistakes_of_the_user_are_reported_as_errors(model, tmp_path):
    with pytest.raises(AudioError, match=r"absent\.wav"):
        calibrate([tmp_path / "absent.wav"], model, 0.5)
    with pytest.raises(ConfigError, match="must be above 0 and below 10000"):
        calibrate([DEMO], model, 0.0)
    save_thresholds({"yes": 0.9}, None, tmp_path / "c.yaml")
    with pytest.raises(ConfigError, match="already exists"):
        save_thresholds({"yes": 0.9}, None, tmp_path / "c.yaml")
    assert load_config(tmp_path / "c.yaml", {}).unnamed.thresholds == {"yes": 0.9}
    save_thresholds({"yes": 0.9}, tmp_path / "m.onnx", tmp_path / "d.yaml")
    assert load_config(tmp_path / "d.yaml", {}).model == tmp_path / "m.onnx"  # for this model, not the bundled one
    (tmp_path / "link.yaml").symlink_to(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="already exists"):
        save_thresholds({"yes": 0.9}, None, tmp_path / "link.yaml")
    with pytest.raises(ConfigError, match="cannot be written"):
        refuse_existing(tmp_path / "absent" / "c.yaml")


def test_a_full_disk_leaves_no_partial_file(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"c\.yaml: File too large"):
            save_thresholds({"yes": 0.9, "no": 0.8}, None, tmp_path / "c.yaml")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "c.yaml").exists()


def test_calibrate_writes_a_file_that_spot_accepts(tmp_path):
    def kwsd(*arguments):
        command = [sys.executable, "-m", "kwsd", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)

    result = kwsd("calibrate", "--false-accepts-per-hour", "600", DEMO, "-o", tmp_path / "c.yaml")
    assert result.returncode == 0, result.stderr
    assert "missed in validation" in result.stdout
    thresholds = yaml.safe_load((tmp_path / "c.yaml").read_text().replace("on:", "'on':").replace("no:", "'no':"))
    assert len(thresholds["thresholds"]) >= 8
    n_false = sum(int(line.split()[2]) for line in result.stdout.splitlines()[1:11])
    spotted = kwsd("spot", "--config", tmp_path / "c.yaml", DEMO)
    assert spotted.returncode == 0, spotted.stderr
    assert abs(len(spotted.stdout.splitlines()) - n_false) <= 1  # spot also appends silence to decide the last word
    again = kwsd("calibrate", "--false-accepts-per-hour", "600", DEMO, "-o", tmp_path / "c.yaml")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)


def test_thresholds_are_tried_on_marked_clips(model, few_seconds_wav, tmp_path):
    for n, said in enumerate(["down", "", "down", None]):
        clip = tmp_path / f"{n}.wav"
        clip.write_bytes(few_seconds_wav.read_bytes())
        mark = {} if said is None else {"said": said}
        clip.with_suffix(".json").write_text(json.dumps({"label": "down", **mark}))
    own = model.card.decision.thresholds
    fires = "fires in {} of 2 marked clips of it, and in {} of 1 that it must not fire in"
    assert [line.strip() for line in check_marks(marked_in(tmp_path), model, own)] == [f"down  {fires.format(2, 1)}"]
    [line] = check_marks(marked_in(tmp_path), model, own | {"down": 0.9999})
    assert line.strip() == f"down  {fires.format(0, 0)}"
