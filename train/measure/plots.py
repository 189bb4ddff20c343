"""Plots of measurements."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def history(rows: list[dict[str, float]], path: Path) -> None:
    """Plot loss and accuracy over the epochs, for training and validation."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    epochs = range(1, len(rows) + 1)
    axes[0].plot(epochs, [row["loss"] for row in rows])
    axes[1].plot(epochs, [row["accuracy"] for row in rows], label="training windows, all words")
    axes[1].plot(epochs, [row["val_accuracy"] for row in rows], label="validation clips")
    axes[1].legend()
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        axis.set(xlabel="epoch", title=what)
        axis.grid(alpha=0.3)
    _save(figure, path)


def confusion(matrix: list[list[int]], labels: list[str], title: str, path: Path) -> None:
    """Plot a confusion matrix. Rows are the truth and sum to 100 %; the numbers count clips."""
    figure, axis = plt.subplots(figsize=(7.5, 7), layout="constrained")
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in matrix]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for i, row in enumerate(matrix):
        for j, n in enumerate(row):
            if n:
                axis.text(
                    j, i, str(n), ha="center", va="center", color="white" if shares[i][j] > 50 else "black", fontsize=8
                )
    ticks = range(len(labels))
    axis.set(xticks=ticks, yticks=ticks, yticklabels=labels, xlabel="predicted", ylabel="truth", title=title)
    axis.set_xticks(ticks, labels, rotation=45, ha="right")
    _save(figure, path)


def trade_off(curves: dict[str, list[list[float]]], title: str, path: Path) -> None:
    """Plot missed keywords against false accepts an hour. Each threshold is a point of a curve."""
    figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name, points in curves.items():
        axis.plot([max(per_hour, 0.03) for per_hour, _ in points], [100 * missed for _, missed in points], label=name)
    axis.set(xscale="log", xlim=(0.1, 200), ylim=(0, 100), title=title)
    axis.set(xlabel="false accepts an hour", ylabel="missed keywords, %")
    axis.axvline(1.0, color="grey", linewidth=0.8)
    axis.grid(alpha=0.3, which="both")
    axis.legend()
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
