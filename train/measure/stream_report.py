"""Reports of streams: what a model misses, and its false accepts, at several rates.

Law: every figure states its interval, and whether the hours of stream support it.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kwsd.core.sweep import GRID
from train.files import write_json
from train.measure import plots
from train.measure.clips import about, wilson
from train.measure.streams import Measured, Streams, is_inside, keyword_times, match_label, measure
from train.measure.subject import Subject

_TENSORFLOW_TOLERANCE_SECONDS = 1.5
RATES = (1.0, 0.5, 0.2, 0.1)
"""False accepts an hour at which the misses are reported."""

OFTEN = 5
"""A recording that occurs this often in a stream shows whether it is ever detected."""


def evaluate_streams(subject: Subject, streams: Streams, split: str, folder: Path) -> dict[str, Any]:
    """Measure a model on streams, and write `KIND-SPLIT.json` and `.png` into `folder`."""
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
        report["streams"][name] = describe(measure(subject, stream, f"stream of {name}"), card.keywords)
    if streams.hours_a_day:
        report["day"] = {name: _day(report["streams"][name], hours) for name, hours in streams.hours_a_day.items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{streams.kind}-{split}.json", report)
    curves = {f"{name}, {one['hours']:.1f} h": one["curve"] for name, one in report["streams"].items()}
    plots.trade_off(curves, f"{card.name}, {split} speakers", folder / f"{streams.kind}-{split}.png")
    return report


def _day(stream: dict[str, Any], hours_a_day: float) -> dict[str, Any]:
    """Events in a day with the model's own thresholds."""
    own = stream["own_thresholds"]
    free_hours = hours_a_day * stream["hours_without_keywords"] / stream["hours"]
    return {
        "hours": hours_a_day,
        "missed": own["frr"],
        "substitutions": round(own["substitutions"] * hours_a_day / stream["hours"], 1),
        "false": round(own["per_hour"] * free_hours, 1),
        "false_95": [round(bound * free_hours, 1) for bound in own["per_hour_95"]],
    }


def describe(measured: Measured, keywords: list[str]) -> dict[str, Any]:
    """The figures of one stream, for JSON."""
    hours = measured.free_seconds / 3600
    frr = 1 - measured.hits.sum(axis=1) / max(1, len(measured.said))
    false_accepts = _never_rising(measured.false_accepts.sum(axis=1))
    return {
        "hours": round(measured.seconds / 3600, 3),
        "hours_without_keywords": round(hours, 3),
        "n_windows": measured.n_windows,
        "n_keywords": len(measured.said),
        "at_rate": {f"{rate:g}": _at_rate(measured, keywords, false_accepts, rate) for rate in RATES},
        "own_thresholds": _own_decision(measured, keywords),
        "curve": [
            [round(float(n) / hours, 4), round(float(miss), 4)] for n, miss in zip(false_accepts, frr, strict=True)
        ],
    }


def _at_rate(measured: Measured, keywords: list[str], false_accepts: NDArray[np.int64], rate: float) -> dict[str, Any]:
    """Misses at the lowest threshold, the same for all keywords, that keeps a rate of false accepts."""
    hours = measured.free_seconds / 3600
    within = np.flatnonzero(false_accepts <= rate * hours)
    at = int(within[0]) if len(within) else len(GRID) - 1
    n_hits, n_said, n_false = int(measured.hits[at].sum()), measured.n_said, int(false_accepts[at])
    latencies = [seconds for n in range(len(keywords)) for seconds in measured.latencies.get((at, n), {}).values()]
    return {
        "threshold": round(float(GRID[at]), 5),
        "frr": round(1 - n_hits / max(1, int(n_said.sum())), 4),
        "frr_95": [round(1 - share, 4) for share in reversed(wilson(n_hits, max(1, int(n_said.sum()))))],
        "frr_old_count": _frr_old_count(measured, rate),
        "substitutions": int(measured.substitutions[at].sum()),
        "false_accepts": n_false,
        "per_hour_95": [round(bound / hours, 3) for bound in poisson(n_false)],
        "never_heard": _never_heard(measured, at),
        "reached": len(within) > 0,
        "supported": rate * hours >= 3,  # rule of three: no event in T hours shows a rate below 3/T (95 %)
        "frr_of": {
            keyword: {
                "frr": round(1 - int(measured.hits[at, n]) / max(1, int(n_said[n])), 4),
                "n": int(n_said[n]),
                "false_accepts": int(measured.false_accepts[at, n]),
                "per_hour_95": [round(bound / hours, 3) for bound in poisson(int(measured.false_accepts[at, n]))],
            }
            for n, keyword in enumerate(keywords)
        },
        "latency_p50": _quantile(latencies, 0.5),
        "latency_p95": _quantile(latencies, 0.95),
    }


def _frr_old_count(measured: Measured, rate: float) -> float:
    """Misses when substitutions count as false accepts, in all hours: the way of reports before 2026-11-28."""
    false_accepts = _never_rising((measured.false_accepts + measured.substitutions).sum(axis=1))
    within = np.flatnonzero(false_accepts <= rate * measured.seconds / 3600)
    at = int(within[0]) if len(within) else len(GRID) - 1
    return round(1 - int(measured.hits[at].sum()) / max(1, len(measured.said)), 4)


def _never_heard(measured: Measured, at: int) -> dict[str, float]:
    """Recordings of keywords that a threshold misses every time they occur, in any noise.

    Returns:
        "recordings": those that occur at least OFTEN times; "never": how many of them are always
        missed; "by_chance": how many would be if all recordings of a keyword were equally easy;
        "misses": of these recordings; "of_never": misses of those that are always missed. A
        detection counts for the earlier of two utterances within a second, so the counts are slightly high.
    """
    n_said: Counter[tuple[int, int | None]] = Counter((one.label, one.recording) for one in measured.said)
    n_hits: Counter[tuple[int, int | None]] = Counter()
    for n in range(measured.hits.shape[1]):
        of_label = [one.recording for one in measured.said if one.label == n]
        n_hits.update((n, of_label[index]) for index in measured.latencies.get((at, n), {}))
    often = {key: n for key, n in n_said.items() if key[1] is not None and n >= OFTEN}
    missed = 1 - measured.hits[at] / np.maximum(1, measured.n_said)
    never = [n for key, n in often.items() if not n_hits[key]]
    return {
        "recordings": len(often),
        "never": len(never),
        "by_chance": round(sum(float(missed[label]) ** n for (label, _), n in often.items()), 1),
        "misses": sum(n - n_hits[key] for key, n in often.items()),
        "of_never": sum(never),
    }


def caveat(at: dict[str, Any]) -> str:
    """The warning that belongs to the figures at a rate; usually empty."""
    if not at["reached"]:
        return " (even the highest threshold fires more often)"
    return "" if at["supported"] else " (too few hours to show it)"


def _own_decision(measured: Measured, keywords: list[str]) -> dict[str, Any]:
    """The detections with the model's own thresholds: misses, substitutions and false accepts."""
    latencies: list[float] = []
    unmatched: list[float] = []
    for n, keyword in enumerate(keywords):
        said = [one for one in measured.said if one.label == n]
        ends = [found.end_seconds for found in measured.detections if found.label == keyword]
        hit = match_label(said, ends)
        latencies += [end - said[index].end for index, end in hit.items()]
        unmatched += sorted(set(ends) - set(hit.values()))
    n_inside = int(is_inside(keyword_times(measured.said), np.array(unmatched)).sum())
    n_false, hours = len(unmatched) - n_inside, measured.free_seconds / 3600
    return {
        "frr": round(1 - len(latencies) / max(1, len(measured.said)), 4),
        "substitutions": n_inside,
        "false_accepts": n_false,
        "per_hour": round(n_false / hours, 3),
        "per_hour_95": [round(bound / hours, 3) for bound in poisson(n_false)],
        "latency_p50": _quantile(latencies, 0.5),
        "latency_p95": _quantile(latencies, 0.95),
        "tensorflow_percent": _tensorflow_percent(measured, keywords),
    }


def _tensorflow_percent(measured: Measured, keywords: list[str]) -> dict[str, float]:
    """TensorFlow's percentages, as `test_streaming_accuracy` of its speech_commands counts.

    Shares of all keywords: keywords with any detection within 1.5 s; detections there with the right
    label (each keyword once) and with the wrong one; and detections far from any keyword.
    """
    starts = np.array([one.start for one in measured.said])
    matched, used = np.zeros(len(starts), bool), np.zeros(len(starts), bool)
    n_right = n_wrong = n_nowhere = 0
    for found in measured.detections:
        near = np.flatnonzero(np.abs(starts - found.end_seconds) < _TENSORFLOW_TOLERANCE_SECONDS)
        matched[near] = True
        right = [i for i in near if keywords[measured.said[i].label] == found.label and not used[i]]
        if right:
            used[right[0]] = True
            n_right += 1
        elif len(near):
            n_wrong += 1
        else:
            n_nowhere += 1
    counts = {"matched": int(matched.sum()), "correct": n_right, "wrong": n_wrong, "false_positives": n_nowhere}
    return {name: round(100 * n / max(1, len(measured.said)), 2) for name, n in counts.items()}


def poisson(n_events: int) -> tuple[float, float]:
    """95 % interval of the mean of a count (Byar's approximation, Breslow and Day, 1987)."""
    low = n_events * (1 - 1 / (9 * n_events) - 1.96 / (3 * np.sqrt(n_events))) ** 3 if n_events else 0.0
    more = n_events + 1
    return float(low), float(more * (1 - 1 / (9 * more) + 1.96 / (3 * np.sqrt(more))) ** 3)


def _never_rising(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make counts monotonic: a higher threshold may cut an event in two, but a trade-off curve must not rise."""
    return np.maximum.accumulate(counts[::-1])[::-1]


def _quantile(values: list[float], share: float) -> float | None:
    return round(float(np.quantile(values, share)), 3) if values else None
