"""What a model misses and what it makes up in hours of stream.

The law of this file: streams are scenes of one split's speakers, heard by the shipping
Spotter in one pass, in which every threshold of the grid decides as it would have alone
(`kwsd.sweep`). An event hits a keyword of its label that it follows by at most a second;
each keyword is hit once, and every other event is a false accept.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kwsd.model import Model
from kwsd.spotter import Spotter
from kwsd.sweep import GRID, Sweep
from train.data import RATE_HZ
from train.material import Material
from train.scenes import Scene, Style, compose

_SCENE_SECONDS = 60.0
_HIT_SECONDS = 1.0

STREAMS = {
    "words": Style(
        keyword=1.0, other=2.0, cut=0.0, double=0.0, speech=0.15, close=0.3, long_pause=(0.4, 4.0),
        level_dbfs=(-40.0, -15.0), noise=0.85, snr_db=(5.0, 30.0), speed=0.0, reverb=0.0,
    ),
    "speech": Style(
        keyword=0.7, other=0.0, cut=0.0, double=0.0, speech=1.0, close=0.9, speech_seconds=(3.0, 15.0),
        level_dbfs=(-40.0, -15.0), noise=0.5, snr_db=(10.0, 30.0), speed=0.0, reverb=0.0,
    ),
}  # fmt: skip
"""Keywords among other words and noise, and keywords where somebody speaks all the time."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What every threshold made of a stream.

    Attributes:
        seconds: of stream; n_windows: decisions in it.
        n_said: keywords in it, shape (n_keywords,).
        hits, false_accepts: shape (n_grid, n_keywords).
        latencies: of each hit, from the word's end, in seconds, by (grid, keyword).
    """

    seconds: float
    n_windows: int
    n_said: NDArray[np.int64]
    hits: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    latencies: dict[tuple[int, int], list[float]]


def scenes(material: Material, style: Style, hours: float, seed: int) -> list[Callable[[], Scene]]:
    """A stream as its scenes of a minute, each made when it is called for."""
    n_scenes = max(1, round(hours * 3600 / _SCENE_SECONDS))
    return [
        lambda i=i: compose(material, style, _SCENE_SECONDS, np.random.default_rng((seed, i)))  # type: ignore[misc]
        for i in range(n_scenes)
    ]


def hear(model: Model, stream: list[Callable[[], Scene]]) -> Heard:
    """Run a stream through a Spotter and match what fired with what was said."""
    card = model.card
    sweep = Sweep(card)
    spotter = Spotter(model, RATE_HZ, on_posteriors=sweep.push)
    said: list[tuple[int, float, float]] = []
    at = 0
    for make in tqdm(stream, desc="stream", unit=" min", disable=None, leave=False):
        scene = make()
        said += [
            (one.word, (at + one.start) / RATE_HZ, (at + one.end) / RATE_HZ)
            for one in scene.spoken
            if one.word < len(card.keywords)
        ]
        spotter.push(scene.samples)
        at += len(scene.samples)
    return match(said, sweep, at / RATE_HZ, len(card.keywords))


def match(said: list[tuple[int, float, float]], sweep: Sweep, seconds: float, n_keywords: int) -> Heard:
    """Which detections of each threshold hit a keyword.

    Args:
        said: label, start and end in seconds of each keyword, in order.
    """
    events: dict[tuple[int, int], list[float]] = {}
    for one in sweep.fired:
        events.setdefault((one.grid, one.label), []).append(one.end_seconds)
    truths = [[(start, end) for label, start, end in said if label == n] for n in range(n_keywords)]
    hits = np.zeros((len(GRID), n_keywords), np.int64)
    latencies = {}
    for (grid, label), times in events.items():
        late = _match_label(truths[label], times)
        hits[grid, label] = len(late)
        latencies[grid, label] = late
    n_said = np.array([len(spans) for spans in truths])
    counts = sweep.counts()[:, :n_keywords]
    return Heard(seconds, sweep.n_windows, n_said, hits, counts - hits, latencies)


def _match_label(truths: list[tuple[float, float]], times: list[float]) -> list[float]:
    """Latencies of the events that hit: each event may hit the first keyword that is still free."""
    late = []
    first = 0
    for time in times:
        while first < len(truths) and truths[first][1] + _HIT_SECONDS < time:
            first += 1
        if first < len(truths) and truths[first][0] <= time:
            late.append(time - truths[first][1])
            first += 1
    return late
