"""The estimator of choice: borders first, then a regression on size, channels and pairs of channels."""

from __future__ import annotations

from math import comb

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
WIDENING, WIDENING_FROM = 90, 60
"""Intervals are wider by `WIDENING` parts of the coalitions besides the borders, to which the shape was
fitted, and `WIDENING_FROM`. Chosen on groups of 20 and 25 channels of three LeNet-5s."""
FLOAT32_ROUNDING = 1.2e-7
"""Of values, relative: a network computes in float32, and no interval is narrower."""


def estimate_by_borders_first(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
    """Evaluate the borders, then random coalitions, and take the Shapley values of what fits them best.

    Single channels, and the full coalition less a channel, say exactly what a channel adds first and last;
    coalitions in between are drawn mostly from the sizes where values vary, and `Surrogate` joins them all.
    Beyond the coalitions that it takes, what it leaves unexplained is estimated size by size and added, so
    that the values converge to the exact ones.

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group.
        n_evaluations: Different coalitions to evaluate; at least n_channels + 2, the borders are
            2 n_channels + 2.
        seed: Of what is drawn.
    Returns:
        The values add up to v(full) - v(empty). The intervals are the regression's, widened where its
        leave-one-out errors are larger than it thinks, and by what its fitted shape may be wrong; None with
        the borders alone.
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
    n_fitted = count_fitted(len(coalitions), n)
    surrogate = Surrogate(coalitions[:n_fitted], values[:n_fitted])
    means, deviations = surrogate.shapley()
    if len(inner) < N_FOR_INTERVALS:
        return Estimate(means, None, len(coalitions))
    deviations = deviations * max(1.0, surrogate.overconfidence())
    if len(coalitions) > n_fitted:
        residuals = values[n_fitted:] - surrogate.predict(coalitions[n_fitted:])
        means, deviations = _add_residuals(means, deviations, coalitions, residuals, n_fitted)
    rounding = FLOAT32_ROUNDING * float(np.abs(values).max())
    widened = 1 + WIDENING / (len(inner) + WIDENING_FROM)
    half_widths = widened * quantile_of_student(len(inner) / 6) * deviations + rounding
    return Estimate(means, half_widths, len(coalitions))


def count_fitted(n_coalitions: int, n_channels: int) -> int:
    """Return how many of the coalitions the regression takes: all borders, whatever their number."""
    return min(n_coalitions, max(MAX_FITTED, 2 * n_channels + 2))


def _add_residuals(
    means: Array, deviations: Array, coalitions: Coalitions, residuals: Array, n_fitted: int
) -> tuple[Array, Array]:
    """Add the Shapley values of the residuals r, as far as they are known better than they are large.

    phi_i = sum_{s = 1 .. n - 1} (E[r(S) | i in S] - E[r(S) | i not in S]) / n over coalitions of size s. The
    residuals of the fitted coalitions are in the regression's values already; those of the others stand for
    all that were not fitted. Each channel's sum is weighed against the regression by the inverse of the
    variances of both.

    Args:
        residuals: Of the coalitions that were not fitted, shape (n_coalitions - n_fitted,).
    """
    n = coalitions.shape[1]
    sums, variances = np.zeros(n), np.zeros(n)
    fitted, others = coalitions[:n_fitted], coalitions[n_fitted:]
    spread = float(residuals.var())
    for size in range(2, n - 1):
        here, is_size = fitted[fitted.sum(1) == size], others.sum(1) == size
        noise = float(residuals[is_size].var()) if is_size.sum() > 1 else spread
        for sign, n_all in ((1, _count(n - 1, size - 1)), (-1, _count(n - 1, size))):
            is_in = (others[is_size] == (sign > 0)).astype(float)
            n_seen = is_in.sum(0)
            n_left = n_all - (here == (sign > 0)).sum(0)
            mean = is_in.T @ residuals[is_size] / np.maximum(n_seen, 1)
            variance = np.where(n_seen >= 2, noise / np.maximum(n_seen, 1), spread)
            sums += sign * n_left / n_all * mean
            variances += (n_left / n_all) ** 2 * variance * (1 - n_seen / np.maximum(n_left, 1))
    sums, variances = sums / n, variances / n**2
    trust = deviations**2 / np.maximum(deviations**2 + variances, 1e-300)
    added = trust * sums
    return means + added - added.mean(), np.sqrt(trust * variances)


def _count(n: int, k: int) -> float:
    """Return n over k, cut off where a float ends."""
    return float(min(comb(n, k), 10**300))
