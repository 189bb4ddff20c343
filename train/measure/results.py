"""Writes docs/RESULTS.md: every figure comes from a report that `python -m train evaluate` wrote.

Law: this file measures nothing and contains no figures of its own. Published figures are quoted
with their sources. The page is short; the reports have the rest.
"""

from pathlib import Path
from typing import Any

import numpy as np

from kwsd.core.frontend import PARAMETER_SETS
from kwsd.core.model import DEFAULT_MODEL
from kwsd.errors import TrainingError
from train.architectures import ARCHITECTURES, multiplies
from train.files import read_json
from train.measure import plots
from train.measure.stream_report import caveat
from train.recordings.windows import window_frames

_RATE = "1"  # false accepts an hour

_PUBLISHED = """\
| model | Speech Commands v0.01 / v0.02, % | parameters | multiplies | source |
|---|---|---|---|---|
| BC-ResNet-8 | 98.0 / 98.7 | 321 k | 89 M | B. Kim et al., 2021 |
| BC-ResNet-3 | 97.6 / 98.2 | 54 k | 16 M | the same |
| BC-ResNet-1 | 96.6 / 96.9 | 9.2 k | 3.1 M | the same |
| ds_tc_resnet | – / 98.0 | 75 k | – | O. Rybakov et al., 2020 |
| MatchboxNet 3x2x64 | 97.5 / 97.2 | 93 k | 11 M | S. Majumdar, B. Ginsburg, 2020 |
| TC-ResNet14-1.5 | 96.6 / – | 305 k | 6.7 M | S. Choi et al., 2019 |
| KWT-3 | – / 98.7 | 5.5 M | – | A. Berg et al., 2021 |

These are figures for clips of the official test set, after training on all of the official training set."""

_EACH_DIFFERS = """\
Each training differs from the first row's only in what its row names, and in the revision of the code. A difference
smaller than that of a second run of the same training (`again`, in the next table) means nothing.
[training.md](training.md#trainings-in-resultsmd) says what each name stands for. A stream's column has a threshold of
its own. The last column has one for all streams, as a device has, with one false accept an hour on average. It depends
on three times as many false accepts, so less on chance."""

_EARLIER = """\
These trainings, and the streams of these figures, used recordings in which `on` and `off` were reconstructions. A
substitution counts as a false accept. So the figures compare with each other, and not with those above."""

_KINDS = {
    "validation.json": "clips",
    "stream-validation.json": "stream",
    "stream-training.json": "of training",
    "home-validation.json": "home",
}
"""File names of reports, and their kinds. "of training" is about the recordings that a model was trained on."""


def write_results(folder: Path, path: Path) -> None:
    """Write the Markdown and, beside it, the plot of all trade-offs.

    Args:
        folder: contains a folder of reports for each model, and `ablations/` with more such folders.

    Raises:
        TrainingError: no reports, or an unreadable report.
    """
    models = _reports(folder)
    if not models:
        raise TrainingError(f"{folder}: no reports; make them with `python -m train evaluate MODEL -o {folder}/NAME`")
    streamed = {name: one["stream"] for name, one in models.items() if "stream" in one}
    picture = path.with_name("trade-off.png")
    curves = {
        f"{name}: {kind}": stream["curve"] for name, one in streamed.items() for kind, stream in one["streams"].items()
    }
    plots.trade_off(curves, "validation speakers", picture)
    sections = [
        "# Results",
        f"Made by `python -m train results {folder} -o {path}` from the reports in `{folder}`, which have the rest:\n"
        "other rates, each keyword, noise, intervals, seeds, digests. Splits are by speaker. All choices were made on\n"
        "validation speakers, so expect slightly worse figures on other speakers.",
        "## Models",
        _models(models),
        f"![trade-off of misses and false accepts]({picture.name})",
        *_limits(models),
        *_home(models),
        _commands(models),
    ]
    ablations = _reports(folder / "ablations")
    if ablations:
        if DEFAULT_MODEL.stem not in streamed:
            raise TrainingError(f"{folder / DEFAULT_MODEL.stem}: no reports; ablations are compared with them")
        sections += [
            "## What each part gave",
            _EACH_DIFFERS,
            _ablations(models[DEFAULT_MODEL.stem], ablations, "ablations"),
        ]
    if earlier := _reports(folder / "earlier"):
        if DEFAULT_MODEL.stem not in earlier:
            raise TrainingError(
                f"{folder / 'earlier' / DEFAULT_MODEL.stem}: no reports; earlier ones are compared with it"
            )
        base = earlier.pop(DEFAULT_MODEL.stem)
        sections += ["## What each part gave on the earlier recordings", _EARLIER, _ablations(base, earlier, "earlier")]
    sections += ["## Published", _PUBLISHED]
    path.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports of each subfolder, by kind."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(path for name in _KINDS for path in folder.glob(f"*/{name}")):
        found.setdefault(path.parent.name, {})[_KINDS[path.name]] = read_json(path)
    if missing := [name for name, one in found.items() if "clips" not in one]:
        raise TrainingError(f"{folder / missing[0]}: has streams but no clips; run `python -m train evaluate` on it")
    return found


def _models(models: dict[str, dict[str, Any]]) -> str:
    kinds = list(dict.fromkeys(kind for one in models.values() for kind in one.get("stream", {}).get("streams", {})))
    rows = [
        "| model | parameters | multiplies | clips right (95 %) | longer clips right | "
        f"{' | '.join(f'{kind} missed' for kind in kinds)} | latency p95 | hours of each stream |",
        "|---|---|---|---|---|" + "---|" * (len(kinds) + 2),
    ]
    for name, one in models.items():
        clips, streams = one["clips"], one.get("stream", {}).get("streams", {})
        low, high = clips["interval_95"]
        n_parameters, n_multiplies = _size(clips["model"])
        at = {kind: streams[kind]["at_rate"][_RATE] for kind in kinds if kind in streams}
        missed = [_missed(at[kind]) if kind in at else "–" for kind in kinds]
        longer = f"{clips['longer_clips']['accuracy']:.4f}" if "longer_clips" in clips else "–"
        latency = max((one["latency_p95"] or 0 for one in at.values()), default=0)
        rows.append(
            f"| {name} | {n_parameters / 1e3:.0f} k | {n_multiplies / 1e6:.1f} M | "
            f"{clips['accuracy']:.4f} ({low:.4f} to {high:.4f}) | {longer} | {' | '.join(missed)} | {latency:.2f} s | "
            f"{next((stream['hours'] for stream in streams.values()), 0):g} |"
        )
    n_clips = next(iter(models.values()))["clips"]["n_clips"]
    rows += [
        "",
        f"Clips: 12 classes, {n_clips} clips of a second; longer ones: the same, each at a random place\n"
        f"in 1.2 to 4 s of noise that is 10 to 40 dB softer. Streams: keywords missed at {_RATE} false accept an hour\n"
        "of audio without keywords, one threshold for all; in brackets the substitutions for a hundred keywords,\n"
        "and the misses by the count of earlier reports, in which a substitution was a false accept.",
    ]
    return "\n".join(rows)


def _missed(at: dict[str, Any]) -> str:
    n_keywords = sum(one["n"] for one in at["frr_of"].values())
    substituted = 100 * at["substitutions"] / max(1, n_keywords)
    return f"**{at['frr']:.1%}**{caveat(at)} ({substituted:.1f}; {at['frr_old_count']:.1%})"


def _home(models: dict[str, dict[str, Any]]) -> list[str]:
    """A day at home with the models' own thresholds."""
    rows = [
        f"| {name} | {situation} | {day['hours']:g} | {day['missed']:.1%} | {day['substitutions']:g} | "
        f"{day['false']:g} ({day['false_95'][0]:g} to {day['false_95'][1]:g}) |"
        for name, one in models.items()
        for situation, day in one.get("home", {}).get("day", {}).items()
    ]
    if not rows:
        return []
    head = [
        "| model | situation | hours a day | missed | substitutions a day | false events a day (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    return ["## A day at home, with the model's own thresholds", "\n".join(head + rows)]


def _limits(models: dict[str, dict[str, Any]]) -> list[str]:
    """What the misses of the bundled model consist of; nothing without its reports."""
    reports = models.get(DEFAULT_MODEL.stem, {})
    if "stream" not in reports:
        return []
    report, lines = reports["stream"], []
    if own := reports.get("of training"):
        if _how_made(own) != _how_made(report):
            raise TrainingError(
                f"{DEFAULT_MODEL.stem}/stream-training.json: its model, seed or hours differ from the other reports"
            )
        missed = ", ".join(f"{kind} {one['at_rate'][_RATE]['frr']:.1%}" for kind, one in own["streams"].items())
        lines.append(f"- On streams of the recordings that it was trained on, {DEFAULT_MODEL.stem} misses {missed}.")
    for kind, stream in report["streams"].items():
        never = stream["at_rate"][_RATE]["never_heard"]
        if never["recordings"] > report["made_of"]["keywords"] / 2:
            share = never["of_never"] / max(1, never["misses"])
            lines.append(
                f"- {kind}: {never['never']} of {never['recordings']} recordings of keywords are never heard, in any "
                f"noise ({never['by_chance']:.0f} would be by chance); they are {share:.0%} of the misses."
            )
    return ["\n".join(lines)] if lines else []


def _commands(models: dict[str, dict[str, Any]]) -> str:
    """The commands that made the reports. DATA stands for the recordings, with their `--noise` and `--speech`."""
    lines = ["Commands, where `DATA` stands for the recordings with their `--noise` and `--speech`:", ""]
    for name, one in models.items():
        evaluate = f"`python -m train evaluate {_file(name)} --data DATA -o docs/results/{name}`"
        kinds = [kind for kind in ("stream", "of training", "home") if kind in one]
        streams = "".join(f", and with `{_stream_options(one[kind])}`" for kind in kinds)
        lines.append(f"- {evaluate}{streams} (model {one['clips']['digest'][:12]}){_pace(one['clips']['training'])}")
    return "\n".join(lines)


def _stream_options(report: dict[str, Any]) -> str:
    if "day" in report:
        return (
            f"--home --hours {sum(stream['hours'] for stream in report['streams'].values()):g} --seed {report['seed']}"
        )
    hours = next(iter(report["streams"].values()))["hours"]
    split = "" if report["split"] == "validation" else f"--split {report['split']} "
    return f"--stream {split}--hours {hours:g} --seed {report['seed']}"


def _ablations(bundled: dict[str, Any], reports: dict[str, dict[str, Any]], folder: str) -> str:
    base, streams = bundled["clips"]["training"]["hyperparameters"], bundled["stream"]["streams"]
    command = f"python -m train evaluate NAME.onnx --data DATA -o docs/results/{folder}/NAME"
    options = _stream_options(bundled["stream"])
    rows = [
        f"| training | `fit --set` | clips right | {' | '.join(f'{kind} missed' for kind in streams)} | all |",
        "|---|---|---|" + "---|" * (len(streams) + 1),
    ]
    for name, one in [(DEFAULT_MODEL.stem, bundled), *reports.items()]:
        if "stream" not in one or _which_streams(one["stream"]) != _which_streams(bundled["stream"]):
            raise TrainingError(f"{folder}/{name}: needs the bundled model's streams; run `{command} {options}`")
        hyper = one["clips"]["training"]["hyperparameters"]
        # A report that lacks a hyper-parameter is from before it existed, which is the same as 0.
        settings = ", ".join(f"`{key}={value:g}`" for key, value in hyper.items() if base.get(key, 0) != value)
        missed = [f"{stream['at_rate'][_RATE]['frr']:.1%}" for stream in one["stream"]["streams"].values()]
        missed.append(f"{_missed_by_all(one['stream']['streams']):.1%}")
        rows.append(f"| {name} | {settings} | {one['clips']['accuracy']:.4f} | {' | '.join(missed)} |")
    return "\n".join([*rows, "", f"- `{command}`, and with `{options}`"])


def _missed_by_all(streams: dict[str, Any]) -> float:
    """The mean of the streams' misses at the lowest threshold for all of them that keeps the rate on average."""
    per_hour, missed = np.mean([stream["curve"] for stream in streams.values()], axis=0).T
    within = np.flatnonzero(per_hour <= float(_RATE))
    return float(missed[within[0] if len(within) else -1])  # as for one stream


def _how_made(report: dict[str, Any]) -> tuple[Any, ...]:
    """The model, seed and hours of a report: equal if two splits are comparable."""
    return report["digest"], report["seed"], {name: stream["hours"] for name, stream in report["streams"].items()}


def _which_streams(report: dict[str, Any]) -> tuple[Any, ...]:
    """Everything that identifies the streams of a report."""
    hours = {name: stream["hours"] for name, stream in report["streams"].items()}
    return report["split"], report["seed"], report["made_of"], hours


def _size(architecture: str) -> tuple[int, int]:
    """Parameters and multiplies with twelve outputs, as in published figures."""
    chosen = ARCHITECTURES[architecture]
    params = PARAMETER_SETS[chosen.frontend.name]
    model = chosen.build((window_frames(params), params.n_bands), 12)
    return model.count_params(), multiplies(model)


def _pace(training: dict[str, Any]) -> str:
    if "minutes" not in training:
        return ""
    return f"; trained in {training['minutes']:g} minutes, {training['windows_per_second']} windows a second"


def _file(name: str) -> str:
    folder = "kwsd/models" if name == DEFAULT_MODEL.stem else "models"
    return f"{folder}/{name}.onnx"
