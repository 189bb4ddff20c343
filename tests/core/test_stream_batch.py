"""Streams side by side: each gives the results that it would give alone."""

from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kwsd.core.decision import thresholds_of
from kwsd.core.frontend import log_spectrogram
from kwsd.core.spotter import Spotter
from kwsd.core.state import WindowState
from kwsd.core.stream_batch import StreamBatch


class Recorder:
    """A model that keeps the frames that it is given."""

    def __init__(self, card):
        self.card, self.frames = card, []

    def new_state(self, n_rows):
        return self

    def reset(self, row):
        pass

    def step(self, frames, rows):
        self.frames.append(frames)
        return np.zeros((len(frames), 12), np.float32)


class WithoutStepGraph:
    """A model without its step graph."""

    def __init__(self, model):
        self.card, self._posteriors = model.card, model.posteriors

    def new_state(self, n_rows):
        return WindowState(self.card, self._posteriors, n_rows)


def frames_of(model, samples, sizes):
    recorder = Recorder(model.card)
    batch = StreamBatch(recorder)
    row = batch.join(thresholds_of(model.card))
    start = 0
    for size in sizes:
        assert not any(windows.decided for windows in batch.process({row: samples[start : start + size]}))
        start += size
    return np.concatenate([np.empty((0, 40), np.float32), *(one[0] for one in recorder.frames)])


def test_frames_do_not_depend_on_the_chunks(model, noise):
    whole = log_spectrogram(noise, model.card.frontend)
    for size in (1, 159, 160, 161, 509, 32000):
        frames = frames_of(model, noise, [size] * (32000 // size + 1))
        np.testing.assert_array_equal(frames[2:], whole[: len(frames) - 2])  # two zero frames precede the stream
        assert len(frames) == 200


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=12))
def test_frames_do_not_depend_on_any_chunking(model, sizes):
    samples = np.random.default_rng(0).standard_normal(sum(sizes)).astype(np.float32)
    frames = frames_of(model, samples, sizes)
    whole = log_spectrogram(samples, model.card.frontend)
    np.testing.assert_array_equal(frames[2:], whole[: max(0, len(frames) - 2)])
    params = model.card.frontend
    n_lead = 2 * params.hop_samples - (params.frame_samples - params.hop_samples)
    assert len(frames) == (sum(sizes) + n_lead) // 1600 * 10


@pytest.mark.parametrize("stepped", [True, False], ids=["step graph", "windows"])
def test_streamed_posteriors_equal_those_of_the_window(model, noise, stepped):
    batch = StreamBatch(model if stepped else WithoutStepGraph(model))
    row = batch.join(thresholds_of(model.card))
    heard = {int(windows.ends[0]): windows.posteriors[0] for windows in batch.process({row: noise})}
    n_samples = model.card.window_samples
    assert list(heard) == list(range(n_samples, 32001, 1600))
    for end, posteriors in heard.items():
        window = log_spectrogram(noise[end - n_samples : end], model.card.frontend)[None]
        np.testing.assert_allclose(posteriors, model.posteriors(window)[0], atol=1e-5)


def test_detections_do_not_depend_on_the_other_streams(model, demo):
    """Streams join late, leave, pause and send bursts; each gives the same bits as alone."""
    random = np.random.default_rng(0)
    streams = [np.roll(demo, random.integers(len(demo)))[: random.integers(4, 12) * 16000] for _ in range(7)]
    alone = [Spotter(model, 16000).push(samples) for samples in streams]
    assert sum(map(len, alone)) > 10
    batch = StreamBatch(model)
    spotters, heard, at = {}, [[] for _ in streams], [0] * len(streams)
    for turn in count():
        if turn < len(streams):
            spotters[turn] = Spotter(model, 16000, batch=batch)
        chunks = {}
        for n, spotter in spotters.items():
            size = int(random.choice([0, 160, 1600, 20000]))
            chunks[spotter.row] = spotter.resample(streams[n][at[n] : at[n] + size])
            at[n] += size
        of_row = {spotter.row: n for n, spotter in spotters.items()}
        for decided in (one for windows in batch.process(chunks) for one in windows.decided):
            n = of_row[decided.row]
            heard[n].append(spotters[n].detection(decided))
        for n in list(spotters):
            if at[n] >= len(streams[n]):
                spotters.pop(n).close()
        if not spotters:
            break
    assert heard == alone
