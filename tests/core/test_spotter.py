"""The Spotter gives the same detections for any chunks."""

import numpy as np
import pytest

from kwsd.audio import dbfs
from kwsd.core.frontend import resample
from kwsd.core.model import load_model
from kwsd.core.spotter import Spotter
from kwsd.core.sweep import Sweep


def hear(model, samples, rate_hz=16000, size=1600, **options):
    spotter = Spotter(model, rate_hz, **options)
    heard = [one for i in range(0, len(samples), size) for one in spotter.push(samples[i : i + size])]
    return heard + spotter.flush()


@pytest.fixture(scope="module")
def ten_seconds(demo):
    return demo[: 10 * 16000]


def test_detections_do_not_depend_on_the_chunks(model, ten_seconds):
    whole = hear(model, ten_seconds, size=len(ten_seconds))
    assert whole, "nothing to compare"
    for size in (1, 1601, 16000):
        assert hear(model, ten_seconds, size=size) == whole


def test_a_48_khz_stream_gives_the_detections_of_its_16_khz_original(model, demo):
    original = hear(model, demo)
    faster = hear(model, resample(demo, 16000, 48000), 48000)
    assert [one.label for one in faster] == [one.label for one in original]
    for a, b in zip(faster, original, strict=True):
        assert a.end_seconds == pytest.approx(b.end_seconds, abs=0.1)
        assert a.score == pytest.approx(b.score, abs=0.05)


def test_times_count_from_the_start_of_the_stream(model, ten_seconds):
    plain = hear(model, ten_seconds)
    later = hear(model, ten_seconds, start_seconds=100.0)
    assert [one.end_seconds - 100 for one in later] == pytest.approx([one.end_seconds for one in plain])
    assert all(one.end_seconds - one.start_seconds == pytest.approx(1.0) for one in plain)


def test_a_recording_shorter_than_a_second_is_detected(model, demo, truth):
    word = next(word for word in truth if word["word"] == "yes")
    clip = demo[int(word["start_seconds"] * 16000) - 1000 : int(word["end_seconds"] * 16000) + 1000]
    assert len(clip) < 16000
    assert [one.label for one in hear(model, clip)] == ["yes"]


def test_silence_and_too_few_samples_give_an_empty_list(model):
    assert hear(model, np.zeros(160000, np.float32)) == []
    assert Spotter(model, 16000).push(np.zeros(8000, np.float32)) == []
    assert Spotter(model, 16000).push(np.zeros(0, np.float32)) == []


def test_the_loudness_is_that_of_the_detected_window(model, ten_seconds):
    loud = hear(model, ten_seconds)[0]
    window = ten_seconds[round(16000 * loud.start_seconds) : round(16000 * loud.end_seconds)]
    assert loud.loudness_dbfs == pytest.approx(dbfs(window), abs=0.1)
    soft = hear(model, ten_seconds * np.float32(0.5), thresholds=dict.fromkeys(model.card.keywords, 0.4))
    same = next(one for one in soft if one.label == loud.label)
    assert same.loudness_dbfs == pytest.approx(loud.loudness_dbfs - 6.02, abs=1.5)


def test_earlier_samples_have_no_effect_after_a_reset(model, ten_seconds):
    spotter = Spotter(model, 16000)
    first = spotter.push(ten_seconds)
    spotter.reset(0.0)
    assert spotter.push(ten_seconds) == first


def test_a_stream_too_short_for_a_word_gives_no_decision_and_a_short_one_does(model):
    spotter = Spotter(model, 48000, thresholds=dict.fromkeys(model.card.keywords, 1e-9))  # every window fires
    for n_samples, is_decided in ((0, False), (480, False), (9600, True)):
        spotter.push(np.zeros(n_samples, np.float32))
        assert bool(spotter.flush()) == is_decided, n_samples
        spotter.reset(0.0)


def test_a_reset_also_clears_the_loudness(demo):
    model = load_model(device="cpu", stride_frames=2)
    everything = dict.fromkeys(model.card.keywords, 1e-9)  # every window fires
    spotter = Spotter(model, 16000, thresholds=everything)
    spotter.push(demo[:32000])
    spotter.reset(0.0)
    silent = spotter.push(np.zeros(32000, np.float32))
    assert {one.loudness_dbfs for one in silent} == {-120.0}


def test_a_sweep_counts_on_when_the_clock_starts_anew(model, demo):
    windows = list(Spotter(model, 16000).process(demo[: 8 * 16000]))
    sweep = Sweep(model.card)
    sweep.push(windows)
    once = sweep.counts.copy()
    sweep.reset()
    sweep.push(windows)
    assert once.sum() > 0
    assert (sweep.counts == 2 * once).all()
