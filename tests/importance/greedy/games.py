"""Coalition values that are worked out by hand, without a network behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dirprune.importance.coalitions import Coalitions, CoalitionValues

Coalition = NDArray[np.bool_]


class Game(CoalitionValues):
    """Values from a function of one coalition; counts what it is asked."""

    def __init__(self, n_channels: int, value: Callable[[Coalition], float]) -> None:
        self.group, self.n_channels = "game", n_channels
        self.value = value
        self.n_evaluated = 0

    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        self.n_evaluated += len(coalitions)
        return np.array([self.value(coalition) for coalition in coalitions], dtype=np.float64)


def additive(weights: Sequence[float]) -> Game:
    """Each channel is worth its weight, whatever else is there."""
    return Game(len(weights), lambda coalition: float(np.asarray(weights)[coalition].sum()))


def covering(covered: NDArray[np.bool_], weights: NDArray[np.float64]) -> Game:
    """A coalition is worth the points that any of its channels covers: what is lost only ever grows.

    Args:
        covered: Shape (n_channels, n_points).
        weights: Of the points, shape (n_points,).
    """
    return Game(len(covered), lambda coalition: float(weights[covered[coalition].any(axis=0)].sum()))


def random_covering(n_channels: int, seed: int) -> Game:
    rng = np.random.default_rng(seed)
    return covering(rng.random((n_channels, 4 * n_channels)) < 0.15, rng.random(4 * n_channels))
