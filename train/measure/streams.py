"""Streams: hours of composed audio, and what a model detects in them.

Law: streams are scenes of one split's speakers. The shipping Spotter processes them in one pass, in
which every threshold of the grid decides as it would alone (`kwsd.core.sweep`).

Events are counted as published figures are. The time of a keyword is from its beginning to a second
after its end. An event hits a keyword of its label in this time, each keyword at most once. Another
event in the time of a keyword is a substitution: the keyword fired another label, or fired twice.
Every event outside is a false accept, and false accepts an hour refer to the audio without keywords.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kwsd.core.spotter import Detection, Spotter
from kwsd.core.sweep import GRID, TimedSweep
from kwsd.errors import TrainingError
from train.measure.subject import Subject
from train.recordings.corpus import RATE_HZ
from train.recordings.material import Material
from train.recordings.scenes import Scene, Style, compose

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
    "television": Style(
        keyword=1.0, other=1.0, cut=0.0, double=0.0, speech=0.0, close=0.1, long_pause=(1.0, 4.0),
        level_dbfs=(-40.0, -15.0), voices=1.0, voices_snr_db=(5.0, 20.0), speech_seconds=(3.0, 15.0),
        noise=0.5, snr_db=(15.0, 30.0), speed=0.0, reverb=0.0,
    ),
}  # fmt: skip
"""Keywords among other words and noise; in continuous speech; and while another voice speaks throughout."""


BACKGROUND = Style(
    keyword=1.0, other=0.0, cut=0.0, double=0.0, speech=0.0, close=0.0, long_pause=(2.0, 10.0),
    noise=1.0, snr_db=(0.0, 20.0), speed=0.0, reverb=0.0,
)  # fmt: skip
"""Keywords laid over the user's own recordings, which contain none."""


Stream = list[Callable[[], Scene]]
"""Consecutive scenes, each made when it is called."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What to measure on, by name.

    Attributes:
        kind: part of the names of the report's files.
        seed: of the random numbers.
        made_of: number of recordings of words, and minutes of the others, that are mixed again and
            again; intervals describe these recordings only.
        hours_a_day: how long each stream lasts in a day, if the streams are a day.
    """

    kind: str
    seed: int
    made_of: dict[str, float]
    by_name: dict[str, Stream]
    hours_a_day: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Said:
    """A keyword in a stream: index into the labels, start and end in seconds, and the recording of the material."""

    label: int
    start: float
    end: float
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of every threshold, and of the model's own decision, in a stream.

    Attributes:
        seconds: length of the stream.
        n_windows: number of decisions.
        said: the keywords in the stream, in order.
        free_seconds: audio outside the times of keywords.
        hits, substitutions, false_accepts: shape (n_grid, n_keywords), by the label that fired.
        latencies: for each (grid, keyword) the seconds from the word's end to the hit, by the index
            of the utterance among those of the keyword.
        detections: with the model's own thresholds.
    """

    seconds: float
    free_seconds: float
    n_windows: int
    said: list[Said]
    hits: NDArray[np.int64]
    substitutions: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    latencies: dict[tuple[int, int], dict[int, float]]
    detections: list[Detection]

    @property
    def n_said(self) -> NDArray[np.int64]:
        """Shape: -> (n_keywords,)."""
        return np.bincount([one.label for one in self.said], minlength=self.hits.shape[1])


def streams_of(material: Material, hours: float, seed: int) -> Streams:
    """Streams of each kind, of `hours` each. Without keyword-free speech, only words can be made."""
    n_scenes = max(1, round(hours * 3600 / _SCENE_SECONDS))
    styles = {name: style for name, style in STREAMS.items() if name == "words" or len(material.speech)}
    return Streams(
        "stream",
        seed,
        made_of(material),
        {
            name: [partial(_scene, material, style, (seed_of(seed, name), number)) for number in range(n_scenes)]
            for name, style in styles.items()
        },
    )


def over_own_recordings(material: Material, hours: float, seed: int) -> Streams:
    """Keywords over the material's noise recordings, each second of which occurs once, at its own level.

    The stream ends with the recordings, or after `hours`: repeats would prove nothing.

    Raises:
        TrainingError: the material has no noise.
    """
    if not len(material.noises):
        raise TrainingError("--background: all of these recordings hold only silence")
    n_minute = round(_SCENE_SECONDS * RATE_HZ)
    minutes = [
        (int(index), start, min(n_minute, int(material.lengths[index]) - start))
        for index in material.noises
        for start in range(0, int(material.lengths[index]), n_minute)
    ]
    n_most = round(hours * 3600 * RATE_HZ)
    within = np.cumsum([n_samples for *_, n_samples in minutes]) <= max(n_most, minutes[0][2])
    stream: Stream = [
        partial(_scene_over, material, minute, (seed_of(seed, "background"), number))
        for number, minute in enumerate(minutes)
        if within[number]
    ]
    return Streams("background", seed, made_of(material), {"background": stream})


def made_of(material: Material) -> dict[str, float]:
    """Number of recordings of words, and minutes of speech and noise."""

    def minutes(recordings: NDArray[np.int64]) -> float:
        return round(float(material.lengths[recordings].sum()) / RATE_HZ / 60, 1)

    return {
        "keywords": sum(len(recordings) for recordings in material.keywords),
        "other_words": len(material.others),
        "speech_minutes": minutes(material.speech),
        "noise_minutes": minutes(material.noises),
    }


def _scene(material: Material, style: Style, seeds: tuple[int, int]) -> Scene:
    return compose(material, style, _SCENE_SECONDS, np.random.default_rng(seeds))


def _scene_over(material: Material, minute: tuple[int, int, int], seeds: tuple[int, int]) -> Scene:
    background = material.samples(*minute)
    seconds = len(background) / RATE_HZ
    return compose(material, BACKGROUND, seconds, np.random.default_rng(seeds), background)


def seed_of(seed: int, name: str) -> int:
    """A seed for each stream, so that streams differ from each other."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4])


def measure(subject: Subject, stream: Stream, what: str = "stream") -> Measured:
    """Run a stream through a Spotter, and match detections with keywords."""
    card = subject.card
    sweep = TimedSweep(card)
    spotter = Spotter(subject, RATE_HZ)
    said: list[Said] = []
    detections: list[Detection] = []
    at = 0
    for make in tqdm(stream, desc=what, unit=" min", disable=None, leave=False):
        scene = make()
        said += [
            Said(one.word, (at + one.start) / RATE_HZ, (at + one.end) / RATE_HZ, one.recording)
            for one in scene.spoken
            if one.word < len(card.keywords)
        ]
        windows = list(spotter.process(scene.samples))
        sweep.push(windows)
        detections += spotter.detections(windows)
        at += len(scene.samples)
    return match(said, sweep, at / RATE_HZ, len(card.keywords), detections)


def match(
    said: list[Said], sweep: TimedSweep, seconds: float, n_keywords: int, detections: list[Detection]
) -> Measured:
    """Find which detections of each threshold hit a keyword, and which come in the time of a keyword."""
    events: dict[tuple[int, int], list[float]] = {}
    for one in sweep.fired:
        events.setdefault((one.grid, one.label), []).append(one.end_seconds)
    of_label = [[one for one in said if one.label == n] for n in range(n_keywords)]
    times = keyword_times(said)
    hits, substitutions, false_accepts = np.zeros((3, len(GRID), n_keywords), np.int64)
    latencies = {}
    for key, ends in events.items():
        hit = match_label(of_label[key[1]], ends)
        latencies[key] = {index: end - of_label[key[1]][index].end for index, end in hit.items()}
        inside = is_inside(times, np.setdiff1d(ends, list(hit.values())))
        hits[key], substitutions[key], false_accepts[key] = len(hit), inside.sum(), (~inside).sum()
    free_seconds = seconds - float(np.diff(times, axis=0).sum())
    return Measured(
        seconds, free_seconds, sweep.n_windows, said, hits, substitutions, false_accepts, latencies, detections
    )


def match_label(said: list[Said], ends: list[float]) -> dict[int, float]:
    """The events that hit, by the index of the keyword: each event may hit the first that is still free."""
    hit = {}
    first = 0
    for end in ends:
        while first < len(said) and said[first].end + _HIT_SECONDS < end:
            first += 1
        if first < len(said) and said[first].start <= end:
            hit[first] = end
            first += 1
    return hit


def keyword_times(said: list[Said]) -> NDArray[np.float64]:
    """The times of keywords, in order, without overlap. Shape: -> (2, n), starts and ends in seconds."""
    merged: list[list[float]] = []
    for one in sorted(said, key=lambda one: one.start):
        end = one.end + _HIT_SECONDS
        if merged and one.start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([one.start, end])
    return np.array(merged).reshape(-1, 2).T


def is_inside(times: NDArray[np.float64], ends: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which events come in the time of a keyword. Shape: (2, n), (n_events,) -> (n_events,)."""
    starts, stops = times
    index = np.searchsorted(starts, ends, side="right") - 1
    inside: NDArray[np.bool_] = (index >= 0) & (ends <= np.append(stops, -np.inf)[index])
    return inside
