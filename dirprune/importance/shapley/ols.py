"""The unweighted least squares fit that is known as kernel Shapley in the Dirichlet pruning literature."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dirprune.importance.shapley.estimate import (
    Coalitions,
    Estimate,
    Value,
    check_evaluations,
    evaluate_distinct,
    take_distinct,
)
from dirprune.importance.shapley.settling import default_evaluations


def estimate_by_ols(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
    """Fit an intercept and one coefficient per channel to random coalitions of uniformly random size.

    For comparison only: without the kernel's weights it has another limit than the Shapley values, except
    where the game is additive, and its values need not add up to anything.

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group.
        n_evaluations: Most different coalitions to evaluate; at least n_channels + 1.
        seed: Of what is drawn.
    Returns:
        An estimate without intervals, of least norm where the coalitions do not determine it.
    Raises:
        ImportanceError: If the budget is below n_channels + 1.
    """
    check_evaluations(n_evaluations, n_channels + 1, n_channels)
    n_draws = 20 * min(n_evaluations, max(2**n_channels, default_evaluations(n_channels)))
    drawn = take_distinct(_draws(n_channels, seed), n_evaluations, n_draws)
    found, n_distinct = evaluate_distinct(value, drawn)
    present = drawn - drawn.mean(0)
    values = np.linalg.lstsq(present, found - found.mean(), rcond=None)[0]
    return Estimate(values, None, n_distinct)


def _draws(n_channels: int, seed: int) -> Iterator[Coalitions]:
    """Yield single coalitions, each of shape (1, n_channels)."""
    rng = np.random.default_rng(seed)
    while True:
        coalition = np.zeros((1, n_channels), dtype=bool)
        coalition[0, rng.permutation(n_channels)[: rng.integers(n_channels + 1)]] = True
        yield coalition
