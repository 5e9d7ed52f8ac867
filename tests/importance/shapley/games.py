"""Games whose Shapley values are known, and a value function that counts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dirprune.importance.shapley.estimate import Array, Coalitions, Value


def additive(worths: Sequence[float]) -> Value:
    """Each channel adds its worth: the Shapley values are the worths."""
    return lambda coalitions: coalitions @ np.array(worths) + 3.0


def unanimity(needed: Sequence[int]) -> Value:
    """1 when all needed channels are there: they share it equally, the others get nothing."""
    return lambda coalitions: coalitions[:, list(needed)].all(1).astype(float)


def squared_size(coalitions: Coalitions) -> Array:
    """The square of the size: n channels share n^2 equally."""
    return coalitions.sum(1) ** 2.0


def gloves(coalitions: Coalitions) -> Array:
    """Pairs of one left (channel 0) and one of two right gloves: 2/3, 1/6, 1/6."""
    return np.minimum(coalitions[:, 0], coalitions[:, 1:].sum(1)).astype(float)


def saturating(n_channels: int, seed: int) -> Value:
    """Like a network's: minus the mean logistic loss of margins to which channels add, over 30 examples."""
    rng = np.random.default_rng(seed)
    strengths = rng.gamma(2.0, size=n_channels)
    evidence = strengths[:, None] * (0.6 + rng.normal(size=(n_channels, 30))) * 4 / n_channels
    return lambda coalitions: -np.log1p(np.exp(1 - coalitions @ evidence)).mean(1)


def softmaxed(n_channels: int, seed: int) -> Value:
    """Like the last hidden layer of a classifier: minus the mean cross-entropy, channels add to logits."""
    rng = np.random.default_rng(seed)
    labels = np.eye(6)[rng.integers(6, size=40)]
    readout = rng.normal(size=(n_channels, 6))
    hidden = labels @ readout.T * 20 / n_channels + rng.normal(size=(40, n_channels)) * 1.5
    parts = np.einsum("mi,ic->imc", hidden, readout)

    def value(coalitions: Coalitions) -> Array:
        logits = np.tensordot(coalitions.astype(float), parts, 1)
        right = (logits * labels).sum(2, keepdims=True)
        return -np.log(np.exp(logits - right).sum(2)).mean(1)

    return value


def rugged(n_channels: int, seed: int) -> Value:
    """Every coalition has an independent random value: nothing but evaluating tells them."""
    table = np.random.default_rng(seed).normal(size=2**n_channels)
    return lambda coalitions: table[coalitions @ (1 << np.arange(n_channels))]


class Recorder:
    """Passes coalitions on and remembers the different ones in the order in which they came."""

    def __init__(self, value: Value) -> None:
        self.value = value
        self.asked: dict[bytes, None] = {}

    def __call__(self, coalitions: Coalitions) -> Array:
        self.asked |= dict.fromkeys(row.tobytes() for row in coalitions)
        return self.value(coalitions)


def root_mean_square(errors: Array) -> float:
    return float(np.sqrt((errors**2).mean()))
