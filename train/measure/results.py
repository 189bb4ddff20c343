"""Writes docs/RESULTS.md: every figure comes from a report that `python -m train evaluate` wrote.

Law: this file measures nothing and contains no figures of its own. Published figures are quoted
with their sources.
"""

from pathlib import Path
from typing import Any

from kwsd.core.frontend import PARAMETER_SETS
from kwsd.core.model import DEFAULT_MODEL
from kwsd.errors import TrainingError
from train.architectures import ARCHITECTURES, multiplies
from train.files import read_json
from train.measure import plots
from train.measure.stream_report import OFTEN, caveat
from train.recordings.windows import window_frames

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

These are figures for clips of the official test set, after training on all of the official training
set. Hardly any figures for streams are published: a causal network of 150 k parameters with 95.8 % on
clips is reported to miss 8.5, 16.3 and 29.9 % at 1.0, 0.5 and 0.2 false accepts an hour, on streams
other than these (a paper at Interspeech 2026, known here only from notes on it)."""


_KINDS = {"validation.json": "clips", "stream-validation.json": "stream", "stream-training.json": "of training"}
"""File names of reports, and their kinds. The last is about streams of the recordings that a model was trained on."""


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
        f"Made by `python -m train results {folder} -o {path}` from the reports in `{folder}`, which the commands\n"
        "below each table wrote. Splits are by speaker. All choices were made on validation speakers, so expect\n"
        "slightly worse figures on other speakers. `DATA` stands for the recordings, including the folders of\n"
        "`--noise` and `--speech`.",
        "## Clips",
        _clips(models),
        "## Streams",
        *(_streams(name, models[name]) for name in streamed),
        f"![trade-off of misses and false accepts]({picture.name})",
    ]
    ablations = _reports(folder / "ablations")
    if ablations:
        if DEFAULT_MODEL.stem not in streamed:
            raise TrainingError(f"{folder / DEFAULT_MODEL.stem}: no reports; ablations are compared with them")
        sections += ["## What each part gave", _ablations(models[DEFAULT_MODEL.stem], ablations)]
    sections += ["## Published", _PUBLISHED]
    path.write_text("\n\n".join(sections) + "\n")


def _reports(folder: Path) -> dict[str, dict[str, Any]]:
    """The reports of each folder below, by kind."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(path for name in _KINDS for path in folder.glob(f"*/{name}")):
        found.setdefault(path.parent.name, {})[_KINDS[path.name]] = read_json(path)
    if missing := [name for name, one in found.items() if "clips" not in one]:
        raise TrainingError(f"{folder / missing[0]}: has no report of clips; run `python -m train evaluate` for it")
    return found


def _clips(models: dict[str, dict[str, Any]]) -> str:
    rows = [
        "| model | parameters | multiplies | accuracy (95 %) | `--augment` | at 20, 10, 5, 0 dB SNR | weakest |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in models.items():
        clips = one["clips"]
        low, high = clips["interval_95"]
        n_parameters, n_multiplies = _size(clips["model"])
        noisy = ", ".join(f"{accuracy:.3f}" for accuracy in clips["accuracy_at_snr_db"].values())
        weakest = sorted(clips["recall"].items(), key=lambda item: item[1])[:3]
        rows.append(
            f"| {name} | {n_parameters / 1e3:.0f} k | {n_multiplies / 1e6:.1f} M | "
            f"**{clips['accuracy']:.4f}** ({low:.4f} to {high:.4f}) | {clips['accuracy_augmented']:.4f} | {noisy} | "
            f"{', '.join(f'{label} {recall:.3f}' for label, recall in weakest)} |"
        )
    clips = next(iter(models.values()))["clips"]
    rows.append("")
    rows.append(f"{clips['n_clips']} clips of the {clips['split']} split, balanced as the official test set is.\n")
    rows += [
        f"- `python -m train evaluate {_file(name)} --data DATA -o docs/results/{name}`: "
        f"model {one['clips']['digest'][:12]}, {one['clips']['provider']}{_pace(one['clips']['training'])}"
        for name, one in models.items()
    ]
    return "\n".join(rows)


def _streams(name: str, reports: dict[str, Any]) -> str:
    report = reports["stream"]
    lines = [f"### {name}", ""]
    for kind, stream in report["streams"].items():
        own = stream["own_thresholds"]
        tensorflow = ", ".join(f"{key} {value:g}" for key, value in own["tensorflow_percent"].items())
        lines += [
            f"**{kind}**: {stream['n_keywords']} keywords in {stream['hours']:.2f} hours.",
            "",
            "| false accepts an hour | threshold | missed (95 %) | count, per hour (95 %) | latency p50, p95 |",
            "|---|---|---|---|---|",
            *(_rate_row(rate, at) for rate, at in stream["at_rate"].items()),
            f"| own thresholds | | {own['frr']:.1%} | {own['false_accepts']}, {own['per_hour_95'][0]:.2f} to "
            f"{own['per_hour_95'][1]:.2f} | {own['latency_p50']} s, {own['latency_p95']} s |",
            "",
            f"TensorFlow's streaming percentages with its own thresholds: {tensorflow}.",
            "",
            "| at 1 false accept an hour | utterances | missed | false accepts, per hour (95 %) |",
            "|---|---|---|---|",
            *(
                f"| {keyword} | {one['n']} | {one['frr']:.1%} | {one['false_accepts']}, "
                f"{one['per_hour_95'][0]:.2f} to {one['per_hour_95'][1]:.2f} |"
                for keyword, one in stream["at_rate"]["1"]["frr_of"].items()
            ),
            "",
        ]
    mixed = report["made_of"]
    lines.append(
        f"The streams repeat a set of {mixed['keywords']} recordings of keywords and {mixed['other_words']} of other "
        f"words, {mixed['speech_minutes']:g} minutes of speech and {mixed['noise_minutes']:g} of noise: the intervals "
        "hold for this set.\n"
    )
    lines += _never_heard(report)
    lines.append(_stream_command(name, report))
    if "of training" in reports:
        lines += _of_training(name, report, reports["of training"])
    return "\n".join(lines)


def _of_training(name: str, report: dict[str, Any], own: dict[str, Any]) -> list[str]:
    if _how_made(own) != _how_made(report):
        raise TrainingError(f"{name}/stream-training.json: its model, seed or hours differ from the rest")
    missed = ", ".join(f"{kind} {one['at_rate']['1']['frr']:.1%}" for kind, one in own["streams"].items())
    return [
        "\n**With the recordings that it was trained on**, in streams made the same way, it misses at 1 false accept "
        f"an hour: {missed}. The difference is the cost of voices, words and noise that are new to it.\n",
        _stream_command(name, own),
    ]


def _never_heard(report: dict[str, Any]) -> list[str]:
    """The table of keywords that are never detected; empty if few recordings occur often, or for older reports."""
    counts = {kind: one["at_rate"]["1"].get("never_heard") for kind, one in report["streams"].items()}
    told = {kind: one for kind, one in counts.items() if one and one["recordings"] > report["made_of"]["keywords"] / 2}
    if not told:
        return []
    return [
        f"| at 1 false accept an hour | recordings of keywords that occur {OFTEN} times or more | never detected | "
        "expected by chance | share of their misses |",
        "|---|---|---|---|---|",
        *(
            f"| {kind} | {one['recordings']} | {one['never']} | {one['by_chance']:.0f} | "
            f"{one['of_never'] / max(1, one['misses']):.0%} |"
            for kind, one in told.items()
        ),
        "",
    ]


def _stream_command(name: str, report: dict[str, Any]) -> str:
    hours = next(iter(report["streams"].values()))["hours"]
    split = "" if report["split"] == "validation" else f"--split {report['split']} "
    return (
        f"- `python -m train evaluate {_file(name)} --data DATA --stream {split}--hours {hours:g} "
        f"--seed {report['seed']} -o docs/results/{name}`: model {report['digest'][:12]}, {report['split']} split, "
        f"stride {report['stride_seconds']:g} s, {report['provider']}"
    )


def _rate_row(rate: str, at: dict[str, Any]) -> str:
    low, high = at["frr_95"]
    return (
        f"| {rate}{caveat(at)} | {at['threshold']:.4f} | {at['frr']:.1%} ({low:.1%} to {high:.1%}) | "
        f"{at['false_accepts']}, {at['per_hour_95'][0]:.2f} to {at['per_hour_95'][1]:.2f} | "
        f"{at['latency_p50']} s, {at['latency_p95']} s |"
    )


def _ablations(bundled: dict[str, Any], reports: dict[str, dict[str, Any]]) -> str:
    base = bundled["clips"]["training"]["hyperparameters"]
    streams, seed = bundled["stream"]["streams"], bundled["stream"]["seed"]
    hours = next(iter(streams.values()))["hours"]
    command = "python -m train evaluate NAME.onnx --data DATA -o docs/results/ablations/NAME"
    of_streams = f"--stream --hours {hours:g} --seed {seed}"
    rows = [
        "Each training differs from the bundled model's only in the settings of its row, and in the revision of the",
        "code (see its report). All were measured in the same way.",
        "",
        f"| training | `fit --set` | clips | missed at 1 false accept an hour: {' | '.join(streams)} |",
        "|---|---|---|" + "---|" * len(streams),
    ]
    for name, one in [(DEFAULT_MODEL.stem, bundled), *reports.items()]:
        if "stream" not in one or _which_streams(one["stream"]) != _which_streams(bundled["stream"]):
            raise TrainingError(f"ablations/{name}: needs the bundled model's streams; run `{command} {of_streams}`")
        hyper = one["clips"]["training"]["hyperparameters"]
        # A report without a hyper-parameter is older than it: the training then was as with 0.
        settings = ", ".join(f"`{key}={value:g}`" for key, value in hyper.items() if base.get(key, 0) != value)
        missed = [f"{stream['at_rate']['1']['frr']:.1%}" for stream in one["stream"]["streams"].values()]
        rows.append(f"| {name} | {settings} | {one['clips']['accuracy']:.4f} | {' | '.join(missed)} |")
    rows += ["", f"- `{command}`, and with `{of_streams}`"]
    return "\n".join(rows)


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
