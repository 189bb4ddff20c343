"""Fits a branch: a network with one hidden layer, by scikit-learn, and looks for what it confuses with the word."""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from kwsd.audio import FloatArray
from kwsd.learn.graft import N_SPANS, Branch
from kwsd.learn.pack import Part

_MOST_HIDDEN, _MOST_PARAMETERS = 16, 10_000
_FIRST_NEGATIVES, _HARD_NEGATIVES = 12_000, 8_000
_SAMPLE = 4_000  # for mean and deviation
_ROUNDS = 3  # of looking for hard negatives
_EPOCHS = 6  # in each
_POSITIVE_SHARE = 1 / 3


def fit_branch(
    positives: FloatArray,
    negatives: Part,
    is_allowed: NDArray[np.bool_],
    extra: FloatArray,
    random: np.random.Generator,
    rounds: int = _ROUNDS,
) -> Branch:
    """Fit a branch.

    Args:
        positives: windows with the word, shape (n, N_SPANS * n_channels).
        negatives: many windows without it. The first round takes a random sample of them; each later round adds
            those with the highest scores.
        is_allowed: which of them may be used, shape (n_windows,).
        extra: windows without it that are always used.
    """
    allowed = np.flatnonzero(is_allowed)
    drawn = random.permutation(allowed)[:_FIRST_NEGATIVES]
    sample = negatives.windows(drawn[:_SAMPLE])
    mean, deviation = sample.mean(axis=0), sample.std(axis=0) + np.float32(1e-3)
    branch = None
    for _ in range(rounds):
        if branch:
            scores = np.where(is_allowed, scores_of_part(branch, negatives), -np.inf)
            drawn = np.union1d(drawn, np.argsort(-scores)[: min(_HARD_NEGATIVES, len(allowed))])
        n_others = len(drawn) + len(extra)
        repeats = max(1, round(_POSITIVE_SHARE * n_others / len(positives)))
        x = np.concatenate([*[positives] * repeats, negatives.windows(drawn), extra])
        y = np.arange(len(x)) < len(x) - n_others
        x -= mean
        x /= deviation
        branch = _fitted(x, y, mean, deviation, random)
    assert branch
    return branch


def scores_of_part(branch: Branch, part: Part) -> FloatArray:
    """What the graph computes for all windows of a part of the pack, as logits. Shape: -> (n_windows,)."""
    return np.concatenate([scores_of(branch, windows) for windows in part.blocks()])


def scores_of(branch: Branch, windows: FloatArray) -> FloatArray:
    """What the graph computes, as logits. Shape: (n, N_SPANS * n_channels) -> (n,)."""
    weights = branch.hidden.transpose(2, 1, 0).reshape(-1, len(branch.output))
    hidden = np.maximum(windows @ weights + branch.hidden_bias, 0)
    logits: FloatArray = hidden @ branch.output + np.float32(branch.output_bias)
    return logits


def _n_hidden(n_values: int) -> int:
    """As many hidden values as a branch may have parameters for: each has a weight for every value of a window, a
    bias, and a weight for the output.
    """
    return min(_MOST_HIDDEN, (_MOST_PARAMETERS - 1) // (n_values + 2))


def _fitted(
    x: FloatArray, y: np.ndarray, mean: FloatArray, deviation: FloatArray, random: np.random.Generator
) -> Branch:
    network = MLPClassifier(
        (_n_hidden(x.shape[1]),),
        alpha=1e-2,
        batch_size=256,
        max_iter=_EPOCHS,
        learning_rate_init=2e-3,
        random_state=int(random.integers(2**31)),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed, small number of epochs
        network.fit(x, y)
    first, second = network.coefs_
    bias, output_bias = network.intercepts_
    weights = first / deviation[:, None]  # the graph's means are not standardised
    n_channels = len(weights) // N_SPANS
    return Branch(
        weights.reshape(N_SPANS, n_channels, -1).transpose(2, 1, 0).astype(np.float32),
        (bias - mean @ weights).astype(np.float32),
        second[:, 0].astype(np.float32),
        float(output_bias[0]),
    )
