"""Fits a branch: a network with one hidden layer, by scikit-learn, and looks for what it confuses with the word."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from kwsd.audio import FloatArray
from kwsd.learn.graft import N_SPANS, Branch

_N_HIDDEN = 16
_FIRST_NEGATIVES, _HARD_NEGATIVES = 12_000, 8_000
_ROUNDS = 3  # of looking for hard negatives
_EPOCHS = 6  # in each
_POSITIVE_SHARE = 1 / 3


def fit_branch(
    positives: FloatArray, negatives: FloatArray, extra: FloatArray, random: np.random.Generator, rounds: int = _ROUNDS
) -> Branch:
    """Fit a branch.

    Args:
        positives: windows with the word, shape (n, N_SPANS * n_channels).
        negatives: many windows without it. Some are drawn; then come those that the branch takes for the word.
        extra: windows without it that are always used.
    """
    mean, deviation = negatives[::7].mean(axis=0), negatives[::7].std(axis=0) + np.float32(1e-3)
    drawn = random.permutation(len(negatives))[:_FIRST_NEGATIVES]
    branch = None
    for _ in range(rounds):
        if branch:
            hard = np.argsort(-scores_of(branch, negatives))[:_HARD_NEGATIVES]
            drawn = np.union1d(drawn, hard)
        others = np.concatenate([negatives[drawn], extra])
        repeats = max(1, round(_POSITIVE_SHARE * len(others) / len(positives)))
        x = np.concatenate([*[positives] * repeats, others])
        y = np.arange(len(x)) < repeats * len(positives)
        branch = _fitted((x - mean) / deviation, y, mean, deviation, random)
    assert branch
    return branch


def scores_of(branch: Branch, windows: FloatArray) -> FloatArray:
    """What the graph computes, as logits. Shape: (n, N_SPANS * n_channels) -> (n,)."""
    weights = branch.hidden.transpose(2, 1, 0).reshape(-1, len(branch.output))
    hidden = np.maximum(windows @ weights + branch.hidden_bias, 0)
    logits: FloatArray = hidden @ branch.output + np.float32(branch.output_bias)
    return logits


def _fitted(
    x: FloatArray, y: np.ndarray, mean: FloatArray, deviation: FloatArray, random: np.random.Generator
) -> Branch:
    network = MLPClassifier(
        (_N_HIDDEN,),
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
