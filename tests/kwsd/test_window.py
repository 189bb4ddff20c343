"""Windows come every stride, whatever the chunks of frames were."""

import numpy as np
import pytest

from kwsd.window import FrameRing


@pytest.mark.parametrize("size", [1, 3, 10, 37, 200])
def test_windows_start_every_stride_for_any_chunking(size):
    frames = np.arange(200 * 2, dtype=np.float32).reshape(200, 2)
    ring = FrameRing(window_frames=50, stride_frames=10, n_bands=2)
    windows = np.concatenate([ring.push(frames[i : i + size]) for i in range(0, 200, size)])
    want = np.stack([frames[start : start + 50] for start in range(0, 151, 10)])
    np.testing.assert_array_equal(windows, want)


def test_not_enough_is_an_empty_array_and_reset_forgets():
    ring = FrameRing(5, 2, 1)
    assert ring.push(np.zeros((4, 1), np.float32)).shape == (0, 5, 1)
    ring.reset()
    assert ring.push(np.zeros((4, 1), np.float32)).shape == (0, 5, 1)
    assert ring.push(np.ones((1, 1), np.float32)).shape == (1, 5, 1)
