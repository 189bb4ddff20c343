"""A model card for people: Markdown made from the card in the file, and from nothing else."""

import json
import shutil
from pathlib import Path

from kwsd.errors import ExportError
from kwsd.model import Model


def describe(model: Model, run: Path, path: Path) -> None:
    """Write `path` (Markdown) and, beside it, the confusion matrix of the run's validation."""
    picture = path.with_suffix(".png")
    try:
        shutil.copyfile(run / "validation.png", picture)
        path.write_text(_markdown(model, picture.name))
    except OSError as error:
        raise ExportError(f"{error.filename}: {error.strerror}; the model itself is written") from None


def _markdown(model: Model, picture: str) -> str:
    card = model.card
    measured = card.results["validation"]
    low, high = measured["interval_95"]
    recalls = "\n".join(
        f"| {label} | {measured['recall'][label]:.3f} | {card.decision.thresholds.get(label, '-')} |"
        for label in card.labels
    )
    return f"""# {card.name}

Made by `python -m export --describe` from the card inside the model file.

| | |
|---|---|
| labels | {", ".join(card.labels)} |
| front end | {card.frontend.name}: {card.frontend.sample_rate_hz} Hz, {card.frontend.n_bands} bands |
| window, stride | {card.window_frames} frames, {card.stride_frames} frames |
| size | {model.path.stat().st_size / 2**20:.1f} MiB |
| licence | {card.licence} |
| attribution | {card.attribution} |

## Measured

On the validation split, speakers that were not trained on: accuracy **{measured["accuracy"]:.4f}**
(95 %: {low:.4f} to {high:.4f}) over {len(card.labels)} classes and {measured["n_clips"]} clips.
The epoch and the thresholds were chosen on this same split, so expect a little less elsewhere.

![confusion matrix]({picture})

| label | recall | threshold |
|---|---|---|
{recalls}

The score that meets a threshold is the mean of {card.decision.smoothing_windows} windows; a label
that fired is quiet for {card.decision.refractory_seconds:g} s.

## Limits

It is a classifier of single words. In continuous speech it fires on words that contain or
resemble a keyword; how often is not yet measured. {card.training["note"]}

## Training

```json
{json.dumps(card.training, indent=2)}
```
"""
