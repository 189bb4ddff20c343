"""A clip of a second is one window; in a longer clip, the loudest windows with a word decide."""

import numpy as np
import pytest

from kwsd.core.clip import ClipWindows, clip_posteriors, clip_windows
from kwsd.core.frontend import clip_features


@pytest.mark.parametrize(("rate_hz", "seconds"), [(16000, 0.3), (16000, 1.0), (48000, 1.05), (8000, 1.0)])
def test_a_clip_of_a_second_has_one_window(model, rate_hz, seconds):
    samples = np.random.default_rng(0).standard_normal(round(rate_hz * seconds)).astype(np.float32)
    clip = clip_windows(samples, rate_hz, model.card)
    assert clip.starts.tolist() == [0]
    np.testing.assert_array_equal(
        clip.frames, clip_features(samples, rate_hz, model.card.window_frames, model.card.frontend)
    )


def test_windows_of_a_longer_clip_reach_from_its_first_to_its_last_frame(model, demo):
    clip = clip_windows(demo[:40800], 16000, model.card)
    assert clip.starts.tolist() == [*range(0, 155, 10), 155]
    assert len(clip.frames) == 155 + model.card.window_frames
    want = np.sum(np.square(demo[: model.card.window_samples], dtype=np.float64))
    assert clip.energies[0] == pytest.approx(want)


def test_loud_windows_that_are_not_silence_decide(model):
    card = model.card
    silence, yes, no = (card.labels.index(label) for label in ("silence", "yes", "no"))
    of_windows = np.full((3, len(card.labels)), 0.01, np.float32)
    of_windows[[0, 1, 2], [silence, yes, no]] = 0.88
    frames = np.zeros((card.window_frames + 20, card.frontend.n_bands), np.float32)
    clip = ClipWindows(frames, np.array([0, 10, 20]), np.array([9.0, 4.0, 1.0]))
    [heard] = clip_posteriors([clip], card, lambda windows: of_windows[: len(windows)])
    assert heard[yes] > heard[silence] > heard[no]
    assert heard.sum() == pytest.approx(of_windows[0].sum())


def test_what_shares_a_run_does_not_change_a_clip(model, demo):
    clips = [clip_windows(demo[start : start + n], 16000, model.card) for start, n in ((0, 16000), (16000, 50000))]
    together = clip_posteriors(clips, model.card, model.posteriors)
    alone = [clip_posteriors([clip], model.card, model.posteriors)[0] for clip in clips]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_long_clip_of_zeros_has_posteriors(model):
    [heard] = clip_posteriors(
        [clip_windows(np.zeros(48000, np.float32), 16000, model.card)], model.card, model.posteriors
    )
    assert heard.sum() == pytest.approx(1, abs=1e-3)


def test_however_long_the_clips_a_run_has_few_windows(model):
    random = np.random.default_rng(0)
    clips = [
        clip_windows(random.standard_normal(16000 * seconds).astype(np.float32), 16000, model.card)
        for seconds in (1, 30, 2)
    ]
    sizes = []

    def posteriors(windows):
        sizes.append(len(windows))
        return model.posteriors(windows)

    assert clip_posteriors(clips, model.card, posteriors).shape == (3, len(model.card.labels))
    assert max(sizes) <= 32
    assert sum(sizes) == sum(len(clip.starts) for clip in clips)
