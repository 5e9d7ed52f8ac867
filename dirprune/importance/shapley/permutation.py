"""Shapley values from random orders of the channels, each with its reverse."""

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
    take_distinct,
)
from dirprune.importance.shapley.exact import compute_exact

N_FOR_INTERVALS = 4
"""Pairs from which on there are intervals."""


def estimate_by_permutations(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
    """Average what each channel adds to those before it, over random orders and their reverses.

    Castro, Gomez and Tejada 2009; the antithetic pairs are Mitchell et al. 2022, section 4.1. Unbiased; the
    values add up to v(full) - v(empty). Only whole pairs count, so that a part of the budget may be left: an
    order without its reverse would bring in the errors of interactions of pairs, which a pair does not have.

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group.
        n_evaluations: Most different coalitions to evaluate; one order takes n_channels + 1 of them, a pair
            2 n_channels; below that there is one order alone.
        seed: Of what is drawn.
    Returns:
        The intervals are Student's over the pairs, with half the degrees of freedom; None with fewer than
        four pairs. They rest on the gains that were seen: where the value moves in steps, as accuracy on few
        images does, the interval of a channel that changed nothing in any order has no width and may miss.
    Raises:
        ImportanceError: If the budget does not pay for one order.
    """
    n = n_channels
    check_evaluations(n_evaluations, n + 1, n)
    if is_everything(n_evaluations, n):
        return compute_exact(value, n)
    value(borders(n))  # needed anyway, and asked for before long work on the sequence
    if n_evaluations < 2 * n:
        coalitions = next(_pairs(n, seed))[: n + 1]
    else:
        coalitions = take_distinct(_pairs(n, seed), n_evaluations, 2 * n_evaluations)
    found, n_distinct = evaluate_distinct(value, coalitions)
    chains = coalitions.reshape(-1, n + 1, n)
    channels = (chains[:, 1:] & ~chains[:, :-1]).argmax(2)
    gains = np.empty((len(chains), n))
    np.put_along_axis(gains, channels, np.diff(found.reshape(-1, n + 1), axis=1), axis=1)
    return Estimate(gains.mean(0), _half_widths(gains), n_distinct)


def _pairs(n_channels: int, seed: int) -> Iterator[Coalitions]:
    """Yield two chains from the empty to the full coalition, shape (2 n_channels + 2, n_channels)."""
    rng = np.random.default_rng(seed)
    while True:
        place = rng.permutation(n_channels)
        both = np.stack([place, n_channels - 1 - place])[:, None, :]
        yield (both < np.arange(n_channels + 1)[:, None]).reshape(-1, n_channels)


def _half_widths(gains: Array) -> Array | None:
    n_pairs = len(gains) // 2
    if n_pairs < N_FOR_INTERVALS:
        return None
    pairs = gains.reshape(n_pairs, 2, -1).mean(1)
    # Gains are skewed, a few first channels gaining most: half the degrees keep the coverage above 90%.
    return quantile_of_student((n_pairs - 1) / 2) * pairs.std(0, ddof=1) / np.sqrt(n_pairs)
