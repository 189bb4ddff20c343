"""What a model misses and what it makes up in hours of stream.

The law of this file: streams are scenes of one split's speakers, heard by the shipping
Spotter in one pass, in which every threshold of the grid decides as it would have alone
(`kwsd.core.sweep`). An event hits a keyword of its label if it comes between the word's begin
and a second after its end; each keyword is hit once, and every other event is a false accept.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from kwsd.core.spotter import Detection, Spotter
from kwsd.core.sweep import GRID, Sweep
from train.files import write_json
from train.measure import plots
from train.measure.clips import about, wilson
from train.measure.subject import Subject
from train.recordings.corpus import RATE_HZ
from train.recordings.material import Material
from train.recordings.scenes import Scene, Style, compose

_SCENE_SECONDS = 60.0
_HIT_SECONDS = 1.0
_TENSORFLOW_TOLERANCE_SECONDS = 1.5
RATES = (1.0, 0.5, 0.2, 0.1)
"""False accepts an hour at which the false rejects are reported."""

OFTEN = 5
"""A recording that was said so many times tells whether it is ever heard."""

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
"""Keywords among other words and noise, where somebody speaks all the time, and while somebody else does."""


BACKGROUND = Style(
    keyword=1.0, other=0.0, cut=0.0, double=0.0, speech=0.0, close=0.0, long_pause=(2.0, 10.0),
    noise=1.0, snr_db=(0.0, 20.0), speed=0.0, reverb=0.0,
)  # fmt: skip
"""Keywords over the user's own recordings, which hold none."""


Stream = list[Callable[[], Scene]]
"""Scenes that follow each other, each made when it is called for."""


@dataclass(frozen=True, slots=True)
class Streams:
    """What to measure on, by name.

    Attributes:
        kind: names the report's files.
        seed: what the streams come from.
        made_of: how many recordings of words, and minutes of the others, are mixed in them again
            and again: what an interval says holds for these.
    """

    kind: str
    seed: int
    made_of: dict[str, float]
    by_name: dict[str, Stream]


@dataclass(frozen=True, slots=True)
class Said:
    """A keyword in a stream: index into the labels, when, in seconds, and which recording of the material."""

    label: int
    start: float
    end: float
    recording: int | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What every threshold, and the model's own decision, made of a stream.

    Attributes:
        seconds: of stream; n_windows: decisions in it.
        said: the keywords in it, in order.
        hits, false_accepts: shape (n_grid, n_keywords).
        latencies: from the word's end, in seconds, of the hits of each (grid, keyword), by which of the keyword's
            own utterances was hit.
        detections: the Spotter's own.
    """

    seconds: float
    n_windows: int
    said: list[Said]
    hits: NDArray[np.int64]
    false_accepts: NDArray[np.int64]
    latencies: dict[tuple[int, int], dict[int, float]]
    detections: list[Detection]

    @property
    def n_said(self) -> NDArray[np.int64]:
        """Shape: -> (n_keywords,)."""
        return np.bincount([one.label for one in self.said], minlength=self.hits.shape[1])


def streams_of(material: Material, hours: float, seed: int) -> Streams:
    """So many hours of each kind of stream that can be made: without keyword-free speech, only of words."""
    n_scenes = max(1, round(hours * 3600 / _SCENE_SECONDS))
    styles = {name: style for name, style in STREAMS.items() if name == "words" or len(material.speech)}
    return Streams(
        "stream",
        seed,
        _made_of(material),
        {
            name: [partial(_scene, material, style, (_seed_of(seed, name), number)) for number in range(n_scenes)]
            for name, style in styles.items()
        },
    )


def over_own_recordings(material: Material, hours: float, seed: int) -> Streams:
    """Keywords over the material's noise recordings, each second of which is heard once, as loud as it is.

    At most so many hours: repeats would prove nothing.
    """
    n_minute = round(_SCENE_SECONDS * RATE_HZ)
    minutes = [
        (int(index), start, min(n_minute, int(material.lengths[index]) - start))
        for index in material.noises
        for start in range(0, int(material.lengths[index]), n_minute)
    ]
    n_most = round(hours * 3600 * RATE_HZ)
    within = np.cumsum([n_samples for *_, n_samples in minutes]) <= max(n_most, minutes[0][2])
    stream: Stream = [
        partial(_scene_over, material, minute, (_seed_of(seed, "background"), number))
        for number, minute in enumerate(minutes)
        if within[number]
    ]
    return Streams("background", seed, _made_of(material), {"background": stream})


def _made_of(material: Material) -> dict[str, float]:
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
    room = material.samples(*minute)
    return compose(material, BACKGROUND, len(room) / RATE_HZ, np.random.default_rng(seeds), room)


def _seed_of(seed: int, name: str) -> int:
    """Streams of one seed differ from each other."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:4])


def hear(subject: Subject, stream: Stream, what: str = "stream") -> Heard:
    """Run a stream through a Spotter and match what fired with what was said."""
    card = subject.card
    sweep = Sweep(card)
    spotter = Spotter(subject, RATE_HZ, on_posteriors=sweep.push)
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
        detections += spotter.push(scene.samples)
        at += len(scene.samples)
    return match(said, sweep, at / RATE_HZ, len(card.keywords), detections)


def match(said: list[Said], sweep: Sweep, seconds: float, n_keywords: int, detections: list[Detection]) -> Heard:
    """Which detections of each threshold hit a keyword."""
    events: dict[tuple[int, int], list[float]] = {}
    for one in sweep.fired:
        events.setdefault((one.grid, one.label), []).append(one.end_seconds)
    of_label = [[one for one in said if one.label == n] for n in range(n_keywords)]
    latencies = {key: match_label(of_label[key[1]], times) for key, times in events.items()}
    hits = np.zeros((len(GRID), n_keywords), np.int64)
    for key, late in latencies.items():
        hits[key] = len(late)
    false_accepts = sweep.counts()[:, :n_keywords] - hits
    return Heard(seconds, sweep.n_windows, said, hits, false_accepts, latencies, detections)


def match_label(said: list[Said], times: list[float]) -> dict[int, float]:
    """Latencies of the events that hit, by which keyword: each may hit the first that is still free."""
    late = {}
    first = 0
    for time in times:
        while first < len(said) and said[first].end + _HIT_SECONDS < time:
            first += 1
        if first < len(said) and said[first].start <= time:
            late[first] = time - said[first].end
            first += 1
    return late


def evaluate_streams(subject: Subject, streams: Streams, split: str, folder: Path) -> dict[str, Any]:
    """Measure a model on streams; writes `KIND-SPLIT.json` and `.png` into `folder`."""
    card = subject.card
    report: dict[str, Any] = {
        **about(subject),
        "split": split,
        "seed": streams.seed,
        "made_of": streams.made_of,
        "stride_seconds": card.stride_seconds,
        "streams": {},
    }
    for name, stream in streams.by_name.items():
        report["streams"][name] = describe(hear(subject, stream, f"stream of {name}"), card.keywords)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{streams.kind}-{split}.json", report)
    curves = {f"{name}, {one['hours']:.1f} h": one["curve"] for name, one in report["streams"].items()}
    plots.trade_off(curves, f"{card.name}, {split} speakers", folder / f"{streams.kind}-{split}.png")
    return report


def describe(heard: Heard, keywords: list[str]) -> dict[str, Any]:
    """The figures of one stream, ready for JSON."""
    hours = heard.seconds / 3600
    frr = 1 - heard.hits.sum(axis=1) / max(1, len(heard.said))
    false_accepts = _never_rising(heard.false_accepts.sum(axis=1))
    return {
        "hours": round(hours, 3),
        "n_windows": heard.n_windows,
        "n_keywords": len(heard.said),
        "at_rate": {f"{rate:g}": _at_rate(heard, keywords, false_accepts, rate) for rate in RATES},
        "own_thresholds": _own_decision(heard, keywords),
        "curve": [
            [round(float(n) / hours, 4), round(float(miss), 4)] for n, miss in zip(false_accepts, frr, strict=True)
        ],
    }


def _at_rate(heard: Heard, keywords: list[str], false_accepts: NDArray[np.int64], rate: float) -> dict[str, Any]:
    """Misses at the lowest threshold, one for all keywords, that stays within a rate."""
    hours = heard.seconds / 3600
    within = np.flatnonzero(false_accepts <= rate * hours)
    at = int(within[0]) if len(within) else len(GRID) - 1
    n_hits, n_said, n_false = int(heard.hits[at].sum()), heard.n_said, int(false_accepts[at])
    late = [seconds for n in range(len(keywords)) for seconds in heard.latencies.get((at, n), {}).values()]
    return {
        "threshold": round(float(GRID[at]), 5),
        "frr": round(1 - n_hits / max(1, int(n_said.sum())), 4),
        "frr_95": [round(1 - share, 4) for share in reversed(wilson(n_hits, max(1, int(n_said.sum()))))],
        "false_accepts": n_false,
        "per_hour_95": [round(bound / hours, 3) for bound in poisson(n_false)],
        "never_heard": _never_heard(heard, at),
        "reached": len(within) > 0,
        "supported": rate * hours >= 3,  # no event in T hours supports only less than 3/T
        "frr_of": {
            keyword: {
                "frr": round(1 - int(heard.hits[at, n]) / max(1, int(n_said[n])), 4),
                "n": int(n_said[n]),
                "false_accepts": int(heard.false_accepts[at, n]),
                "per_hour_95": [round(bound / hours, 3) for bound in poisson(int(heard.false_accepts[at, n]))],
            }
            for n, keyword in enumerate(keywords)
        },
        "latency_p50": _quantile(late, 0.5),
        "latency_p95": _quantile(late, 0.95),
    }


def _never_heard(heard: Heard, at: int) -> dict[str, float]:
    """Recordings of keywords that a threshold misses however often, and in whatever noise, they are said.

    Returns:
        of the "recordings" said so often that it means something, how many are "never" heard, and how many
        would be "by_chance", if all of a keyword were as easily heard; of all "misses" of these recordings,
        how many are "of_never". Of two utterances in one second the first is taken for the one that was
        heard, so a few more are counted than there are.
    """
    n_said: Counter[tuple[int, int | None]] = Counter((one.label, one.recording) for one in heard.said)
    n_hits: Counter[tuple[int, int | None]] = Counter()
    for n in range(heard.hits.shape[1]):
        of_label = [one.recording for one in heard.said if one.label == n]
        n_hits.update((n, of_label[index]) for index in heard.latencies.get((at, n), {}))
    often = {key: n for key, n in n_said.items() if key[1] is not None and n >= OFTEN}
    missed = 1 - heard.hits[at] / np.maximum(1, heard.n_said)
    never = [n for key, n in often.items() if not n_hits[key]]
    return {
        "recordings": len(often),
        "never": len(never),
        "by_chance": round(sum(float(missed[label]) ** n for (label, _), n in often.items()), 1),
        "misses": sum(n - n_hits[key] for key, n in often.items()),
        "of_never": sum(never),
    }


def caveat(at: dict[str, Any]) -> str:
    """What must be said beside the figures at a rate; mostly nothing."""
    if not at["reached"]:
        return " (even the highest threshold fires more often)"
    return "" if at["supported"] else " (too few hours to show it)"


def _own_decision(heard: Heard, keywords: list[str]) -> dict[str, Any]:
    """The Spotter's own detections: misses, false accepts, and TensorFlow's percentages.

    As `test_streaming_accuracy` of TensorFlow's speech_commands counts: of all keywords the
    share with any detection within 1.5 s, of detections with the right and the wrong label
    there, and of detections far from any keyword. Right ones match a keyword only once.
    """
    late = [
        one
        for n, keyword in enumerate(keywords)
        for one in match_label(
            [said for said in heard.said if said.label == n],
            [found.end_seconds for found in heard.detections if found.label == keyword],
        ).values()
    ]
    starts = np.array([one.start for one in heard.said])
    matched, used = np.zeros(len(starts), bool), np.zeros(len(starts), bool)
    n_right = n_wrong = n_nowhere = 0
    for found in heard.detections:
        near = np.flatnonzero(np.abs(starts - found.end_seconds) < _TENSORFLOW_TOLERANCE_SECONDS)
        matched[near] = True
        right = [i for i in near if keywords[heard.said[i].label] == found.label and not used[i]]
        if right:
            used[right[0]] = True
            n_right += 1
        elif len(near):
            n_wrong += 1
        else:
            n_nowhere += 1
    n_said, hours = max(1, len(heard.said)), heard.seconds / 3600
    n_false = len(heard.detections) - len(late)
    return {
        "frr": round(1 - len(late) / n_said, 4),
        "false_accepts": n_false,
        "per_hour": round(n_false / hours, 3),
        "per_hour_95": [round(bound / hours, 3) for bound in poisson(n_false)],
        "latency_p50": _quantile(late, 0.5),
        "latency_p95": _quantile(late, 0.95),
        "tensorflow_percent": {
            "matched": round(100 * int(matched.sum()) / n_said, 2),
            "correct": round(100 * n_right / n_said, 2),
            "wrong": round(100 * n_wrong / n_said, 2),
            "false_positives": round(100 * n_nowhere / n_said, 2),
        },
    }


def poisson(n_events: int) -> tuple[float, float]:
    """95 % interval of the mean of a count (Byar's approximation, Breslow and Day, 1987)."""
    low = n_events * (1 - 1 / (9 * n_events) - 1.96 / (3 * np.sqrt(n_events))) ** 3 if n_events else 0.0
    more = n_events + 1
    return float(low), float(more * (1 - 1 / (9 * more) + 1.96 / (3 * np.sqrt(more))) ** 3)


def _never_rising(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """A higher threshold may count one more, when it cuts an event in two; a trade-off does not."""
    return np.maximum.accumulate(counts[::-1])[::-1]


def _quantile(values: list[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 3) if values else None
