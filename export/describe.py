"""Writes a model card as Markdown. Its text comes only from the model file and the card in it."""

import json
import shutil
from pathlib import Path

from kwsd.core.card import ModelCard
from kwsd.core.model import Model
from kwsd.core.sweep import nearest
from kwsd.errors import ExportError


def describe(model: Model, run: Path, path: Path) -> None:
    """Write `path` (Markdown) and, beside it, the confusion matrix of the run's validation."""
    picture = path.with_suffix(".png")
    try:
        shutil.copyfile(run / "validation.png", picture)
        path.write_text(_markdown(model, picture.name), encoding="utf-8")
    except OSError as error:
        raise ExportError(f"{error.filename}: {error.strerror}; the model file was written") from None


def _markdown(model: Model, picture: str) -> str:
    card = model.card
    measured = card.results["validation"]
    low, high = measured["interval_95"]
    in_noise = sorted(measured["accuracy_at_snr_db"].items(), key=lambda item: -int(item[0]))
    noisy = ", ".join(f"{accuracy:.3f} at {snr_db} dB" for snr_db, accuracy in in_noise)
    rows = "\n".join(_row(card, label, measured["recall"].get(label, float("nan"))) for label in card.labels)
    chosen_on = card.results["missed_on"]
    return f"""# {card.name}

Made by `python -m export --describe` from the card inside the model file.

| | |
|---|---|
| labels | {", ".join(card.labels)} |
| front end | {card.frontend.name}: {card.frontend.sample_rate_hz} Hz, {card.frontend.n_bands} bands |
| window, stride | {card.window_frames} frames, {card.stride_frames} frames |
| size | {model.path.stat().st_size / 2**20:.2f} MiB |
| licence | {card.licence} |
| attribution | {card.attribution} |

## Measured

On the validation split, with speakers that training did not use: accuracy **{measured["accuracy"]:.4f}**
(95 %: {low:.4f} to {high:.4f}) over {len(card.labels)} classes and {measured["n_clips"]} clips;
in noise {noisy} SNR. One number, the odds of unknown ({card.unknown_odds:g}), was chosen on these clips.

![confusion matrix]({picture})

| label | recall of clips | threshold | missed in streams |
|---|---|---|---|
{rows}

Thresholds and misses come from {chosen_on["hours"]:g} hours of validation streams
({", ".join(chosen_on["streams"])}, seed {chosen_on["seed"]}). A threshold applies to the score, which is the
mean posterior of {card.decision.smoothing_windows} windows. After a detection, the refractory period of the label is
{card.decision.refractory_seconds:g} s. [RESULTS.md](RESULTS.md) has the figures of other streams.

## Limits

Words that contain or resemble a keyword can cause a detection. {card.training["note"]}

## Training

{card.training["minutes"]:g} minutes, {card.training["windows_per_second"]} windows a second.

```json
{json.dumps(card.training, indent=2)}
```
"""


def _row(card: ModelCard, label: str, recall: float) -> str:
    if label not in card.keywords:
        return f"| {label} | {recall:.3f} | - | - |"
    threshold = card.decision.thresholds[label]
    missed = card.results["missed"][label][nearest(threshold)]
    return f"| {label} | {recall:.3f} | {threshold:g} | {missed:.1%} |"
