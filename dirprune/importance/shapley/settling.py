"""Grows the budget of an estimator until it is settled which channels stay."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dirprune.importance.shapley.estimate import MAX_EXACT, Estimate, Value, count_coalitions

Estimator = Callable[[Value, int, int, int], Estimate]
"""Called as estimator(value, n_channels, n_evaluations, seed)."""

N_INNER = 1000
GROWTH = 32
N_AGREEING = 3
UNSETTLED = (
    "after %d evaluations it is not settled which of %d channels stay: those around the cut are worth about "
    "the same, or too few evaluations tell them apart"
)

logger = logging.getLogger(__name__)


def default_evaluations(n_channels: int) -> int:
    """Return how many evaluations a group gets: the 2 n + 2 borders, and 2 n + 98 or 1,000 others."""
    return 2 * n_channels + 2 + min(2 * n_channels + 98, N_INNER)


def largest_evaluations(n_channels: int, least: int = 0) -> int:
    """Return the last budget of `estimate_until_settled`."""
    return _round_up(GROWTH * _first_budget(n_channels, least), n_channels)


def _round_up(n_evaluations: int, n_channels: int) -> int:
    """Return all coalitions where twice the budget reaches them: exact, for at most twice the cost."""
    n_all = count_coalitions(n_channels)
    return n_all if n_channels <= MAX_EXACT and 2 * n_evaluations >= n_all else n_evaluations


def _first_budget(n_channels: int, least: int) -> int:
    return max(default_evaluations(n_channels) // 2, least)


def estimate_until_settled(
    estimator: Estimator, value: Value, n_channels: int, seed: int, cut: float = 0.5, least: int = 0
) -> Estimate:
    """Double the budget until the order around the cut seems settled.

    It is when no interval of a kept channel overlaps one of a cut channel, or when three budgets in a row
    keep the same channels, which is no proof; the last budget is 32 times the first, which is said, or all
    coalitions, which a budget of at least half of them becomes. Since sequences are nested, what an earlier
    budget has evaluated is not evaluated again where values are stored.

    Args:
        cut: The keep ratio at which channels are cut, in (0, 1).
        least: Evaluations that the estimator takes at least.
    """
    largest = largest_evaluations(n_channels, least)
    n_evaluations = _round_up(_first_budget(n_channels, least), n_channels)
    n_kept = min(max(1, round(cut * n_channels)), n_channels)
    kept: list[frozenset[int]] = []
    while True:
        estimate = estimator(value, n_channels, n_evaluations, seed)
        order = np.argsort(-estimate.values, kind="stable")
        kept.append(frozenset(order[:n_kept].tolist()))
        agrees = len(kept) >= N_AGREEING and len(set(kept[-N_AGREEING:])) == 1
        is_settled = agrees or _is_apart(estimate, order, n_kept)
        if is_settled or n_evaluations >= largest:
            if not is_settled and n_evaluations < count_coalitions(n_channels):
                logger.warning(UNSETTLED, n_evaluations, n_channels)
            return estimate
        n_evaluations = min(_round_up(2 * n_evaluations, n_channels), largest)


def _is_apart(estimate: Estimate, order: NDArray[np.intp], n_kept: int) -> bool:
    """Return whether the intervals of kept and of cut channels are apart."""
    if estimate.half_widths is None or n_kept == len(order):
        return n_kept == len(order)
    lowest = (estimate.values - estimate.half_widths)[order[:n_kept]].min()
    highest = (estimate.values + estimate.half_widths)[order[n_kept:]].max()
    return bool(lowest > highest)
