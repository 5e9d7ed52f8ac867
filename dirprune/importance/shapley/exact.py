"""Exact Shapley values from the values of all coalitions."""

from __future__ import annotations

from math import comb

import numpy as np

from dirprune.errors import ImportanceError
from dirprune.importance.shapley.estimate import MAX_EXACT, Estimate, Value, borders

BLOCK = 2**14
MAX_SAID = 1000
"""Channels whose coalitions a float can count."""


def compute_exact(value: Value, n_channels: int) -> Estimate:
    """Return exact Shapley values, from all 2 ** n_channels coalitions, in blocks that need little memory.

    The value of channel i is the sum over coalitions S, s = |S|, of v(S) / (n C(n - 1, s - 1)) where i is
    in S, less v(S) / (n C(n - 1, s)) where it is not (Shapley 1953, equation 12, by coalitions).

    Args:
        value: Of coalitions of the group.
        n_channels: Of the group, at most 20.
    Returns:
        The values in the unit of `value`, with intervals of no width.
    Raises:
        ImportanceError: If there are more than 20 channels.
    """
    n = n_channels
    if n > MAX_EXACT:
        count = f"2^{n}" + (f" = {2**n:.2g}" if n <= MAX_SAID else "")
        raise ImportanceError(
            f"exact Shapley values must be of at most {MAX_EXACT} channels, got {n}, which have "
            f"{count} coalitions; try method shapley or shapley-permutation"
        )
    sizes = range(n + 1)
    inside = np.array([1 / (n * comb(n - 1, s - 1)) if s > 0 else 0.0 for s in sizes])
    outside = np.array([1 / (n * comb(n - 1, s)) if s < n else 0.0 for s in sizes])
    empty = value(borders(n))[0]  # taken away everywhere, so that large values do not cancel
    totals = np.zeros(n)
    for start in range(0, 2**n, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, 2**n))
        coalitions = (numbers[:, None] >> np.arange(n) & 1).astype(bool)
        gains = value(coalitions) - empty
        size = coalitions.sum(1)
        totals += ((inside + outside)[size] * gains) @ coalitions - (outside[size] * gains).sum()
    return Estimate(totals, np.zeros(n), 2**n)
