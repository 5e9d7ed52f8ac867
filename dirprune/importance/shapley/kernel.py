"""KernelSHAP: Shapley values as a weighted least squares fit to random coalitions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dirprune.importance.shapley.estimate import (
    Array,
    Coalitions,
    Estimate,
    Value,
    borders,
    check_evaluations,
    evaluate_distinct,
    is_everything,
    quantile_of_student,
    solve_efficient,
    take_distinct,
)
from dirprune.importance.shapley.exact import compute_exact


def estimate_by_kernel(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
    """Fit an additive function to coalitions drawn by the Shapley kernel, in pairs with their complements.

    Lundberg and Lee 2017, equation 9, with the efficiency constraint solved exactly and the pairs of Covert
    and Lee 2021, section 4.2: sizes are drawn with probability proportional to 1 / (s (n - s)), coalitions of
    a size uniformly and with replacement, so that the fit itself has equal weights. Coalitions that are
    drawn again count again and cost nothing.

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group.
        n_evaluations: Most different coalitions to evaluate; see `count_least`.
        seed: Of what is drawn.
    Returns:
        The values add up to v(full) - v(empty); where the pairs that were drawn happen to leave some open,
        they are the nearest to equal ones. The intervals come from the covariance of the estimating equations
        over the pairs; None where there are no more pairs than channels.
    Raises:
        ImportanceError: If the budget does not pay for as many pairs as there are unknowns.
    """
    n = n_channels
    check_evaluations(n_evaluations, count_least(n), n)
    if is_everything(n_evaluations, n):
        return compute_exact(value, n)
    value(borders(n))  # needed anyway, and asked for before long work on the sequence
    drawn = take_distinct(_pairs(n, seed), n_evaluations, 50 * n_evaluations)
    found, n_distinct = evaluate_distinct(value, drawn)
    total = found[1] - found[0]
    present, gains = drawn[2:].astype(float), found[2:] - found[0]
    values, inverse = solve_efficient(present.T @ present, present.T @ gains, total)
    return Estimate(values, _half_widths(present, gains - present @ values, inverse), n_distinct)


def count_least(n_channels: int) -> int:
    """Return how many evaluations can determine the fit.

    Given their sum there are n - 1 unknowns. A pair says one thing about them: what its complement would add
    follows from the sum. With the borders that is 2 n.
    """
    return 2 * n_channels


def _pairs(n_channels: int, seed: int) -> Iterator[Coalitions]:
    """Yield the borders, then pairs of a coalition and its complement, each of shape (2, n_channels)."""
    yield borders(n_channels)
    rng = np.random.default_rng(seed)
    sizes = np.arange(1, n_channels)
    weights = 1 / (sizes * (n_channels - sizes))
    weights /= weights.sum()
    while True:
        coalition = np.zeros(n_channels, dtype=bool)
        coalition[rng.permutation(n_channels)[: rng.choice(sizes, p=weights)]] = True
        yield np.stack([coalition, ~coalition])


def _half_widths(present: Array, residuals: Array, inverse: Array) -> Array | None:
    """Return half widths from the sum over pairs of scores' outer products, both sides times the inverse."""
    n_pairs, n = len(present) // 2, present.shape[1]
    degrees = n_pairs - (n - 1)
    if degrees < 2:
        return None
    scores = (present * residuals[:, None]).reshape(n_pairs, 2, n).sum(1) @ inverse
    variances = (scores**2).sum(0) * (n_pairs / degrees) ** 2  # as the jackknife does
    return quantile_of_student(degrees) * np.sqrt(variances)
