"""The estimator of choice: borders first, then a regression on size, channels and pairs of channels."""

from __future__ import annotations

import numpy as np

from dirprune.importance.shapley.estimate import (
    Array,
    Coalitions,
    Estimate,
    Value,
    check_evaluations,
    is_everything,
    quantile_of_student,
)
from dirprune.importance.shapley.exact import compute_exact
from dirprune.importance.shapley.sequence import border_coalitions, list_coalitions
from dirprune.importance.shapley.surrogate import Surrogate

MAX_FITTED = 2500
"""Coalitions that the regression takes: its cost grows with their third power."""
N_FOR_INTERVALS = 10
"""Coalitions besides the borders from which on there are intervals."""


def estimate_by_borders_first(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
    """Evaluate the borders, then random coalitions, and take the Shapley values of what fits them best.

    Single channels, and the full coalition less a channel, say exactly what a channel adds first and last;
    coalitions in between are drawn mostly from the sizes where values vary, and `Surrogate` joins them all.
    Beyond the coalitions that it takes, what it leaves unexplained is estimated size by size and added, so
    that the values converge to the exact ones.

    Args:
        n_evaluations: Different coalitions to evaluate; at least n_channels + 2, the borders are
            2 n_channels + 2.
    Returns:
        The values add up to v(full) - v(empty). The intervals are the regression's, widened where its
        leave-one-out errors are larger than it thinks; None with the borders alone.
    Raises:
        ImportanceError: If the budget does not reach every channel once.
    """
    n = n_channels
    check_evaluations(n_evaluations, min(n + 2, 2**n), n)
    if is_everything(n_evaluations, n):
        return compute_exact(value, n)
    coalitions = border_coalitions(n, seed)[:n_evaluations]
    values = value(coalitions)
    more = n_evaluations - len(coalitions)
    inner = list_coalitions(n, more, values, seed) if more > 0 else coalitions[:0]
    if len(inner) > 0:
        coalitions, values = np.concatenate([coalitions, inner]), np.concatenate([values, value(inner)])
    n_fitted = max(MAX_FITTED, 2 * n + 2)
    surrogate = Surrogate(coalitions[:n_fitted], values[:n_fitted])
    means, deviations = surrogate.shapley()
    if len(inner) < N_FOR_INTERVALS:
        return Estimate(means, None, len(coalitions))
    deviations = deviations * max(1.0, surrogate.overconfidence())
    rest = coalitions[n_fitted:]
    if len(rest) > 0:
        residuals = values[n_fitted:] - surrogate.predict(rest)
        means, deviations = _add_residuals(means, deviations, rest, residuals)
    return Estimate(means, quantile_of_student(len(inner) / 3) * deviations, len(coalitions))


def _add_residuals(
    means: Array, deviations: Array, coalitions: Coalitions, residuals: Array
) -> tuple[Array, Array]:
    """Add the Shapley values of the residuals, as far as they are known better than they are large.

    phi_i = sum_{s = 1 .. n - 1} (E[r(S) | i in S] - E[r(S) | i not in S]) / n over coalitions of size s.
    Each channel's sum is weighed against the regression by the inverse of the variances of both.
    """
    n = coalitions.shape[1]
    sums, variances = np.zeros(n), np.zeros(n)
    spread = float(residuals.var())
    for size in range(2, n - 1):
        is_size = coalitions.sum(1) == size
        present, here = coalitions[is_size].astype(float), residuals[is_size]
        with_it = present.sum(0)
        without = len(here) - with_it
        is_known = np.minimum(with_it, without) >= 2
        inside = present.T @ here / np.maximum(with_it, 1)
        outside = (1 - present).T @ here / np.maximum(without, 1)
        noise = here.var() * (1 / np.maximum(with_it, 1) + 1 / np.maximum(without, 1)) if len(here) else 0
        sums += np.where(is_known, inside - outside, 0)
        variances += np.where(is_known, noise, spread)
    sums, variances = sums / n, variances / n**2
    trust = deviations**2 / np.maximum(deviations**2 + variances, 1e-300)
    corrected = trust * (sums - sums.mean())
    return means + corrected - corrected.mean(), np.sqrt(trust * variances)
