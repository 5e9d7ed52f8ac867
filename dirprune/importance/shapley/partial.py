"""Shapley values from all of the smallest and all of the largest coalitions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import numpy as np

from dirprune.errors import ImportanceError
from dirprune.importance.shapley.estimate import (
    MAX_EXACT,
    Coalitions,
    Estimate,
    Value,
    borders,
    kernel_weights,
    say_number,
    solve_efficient,
)

BLOCK = 2**14
ADDING = ("both", "yes", "no")


def estimate_by_sizes(value: Value, n_channels: int, k: int, adding: str = "both") -> Estimate:
    """Fit an additive function by the Shapley kernel to all coalitions of the k smallest and largest sizes.

    Exact when that is all coalitions, and for games in which channels interact in pairs alone; nothing is
    random. The empty and the full coalition are always there: the values add up to v(full) - v(empty).

    Args:
        k: Largest number of channels added to none, or taken from all; 1 <= k <= n_channels.
        adding: "yes" for the small coalitions alone, "no" for the large ones alone, "both".
    Returns:
        An estimate without intervals: what the sizes between would say is not sampled.
    Raises:
        ImportanceError: If k is out of range, or makes more than 2^20 coalitions.
    """
    n = n_channels
    sizes, n_coalitions = list_sizes(n, k, adding)
    empty, full = value(borders(n))
    weights = np.array([0.0, *kernel_weights(n)])
    gram, moment = np.zeros((n, n)), np.zeros(n)
    for coalitions in _blocks(n, sizes):
        weighted = coalitions * weights[coalitions.sum(1)][:, None]
        gram += weighted.T @ coalitions.astype(float)
        moment += weighted.T @ (value(coalitions) - empty)
    return Estimate(solve_efficient(gram, moment, full - empty)[0], None, n_coalitions)


def list_sizes(n_channels: int, k: int, adding: str) -> tuple[list[int], int]:
    """Return the sizes between none and all, the outermost first, and how many coalitions there are in all.

    Raises:
        ImportanceError: As `estimate_by_sizes` says.
    """
    n = n_channels
    if not 1 <= k <= n:
        raise ImportanceError(f"k must be in 1 .. {n} for a group of {n} channels, got {k}; try k=1")
    sizes = [s for s in range(1, n) if (adding != "no" and s <= k) or (adding != "yes" and s >= n - k)]
    n_coalitions = 2 + sum(comb(n, s) for s in sizes)
    if n_coalitions > 2**MAX_EXACT:
        raise ImportanceError(
            f"k must give at most {2**MAX_EXACT:,} coalitions, got {k}, which gives "
            f"{say_number(n_coalitions)} of {n} channels; try a smaller k or method shapley"
        )
    return sorted(sizes, key=lambda s: (min(s, n - s), s)), n_coalitions


def _blocks(n_channels: int, sizes: list[int]) -> Iterator[Coalitions]:
    """Yield all coalitions of some sizes, size by size, at most `BLOCK` at once."""
    block: list[tuple[int, ...]] = []
    for size in sizes:
        for members in combinations(range(n_channels), size):
            block.append(members)
            if len(block) == BLOCK:
                yield _to_coalitions(block, n_channels)
                block = []
    if block:
        yield _to_coalitions(block, n_channels)


def _to_coalitions(members: list[tuple[int, ...]], n_channels: int) -> Coalitions:
    coalitions = np.zeros((len(members), n_channels), dtype=bool)
    for row, channels in enumerate(members):
        coalitions[row, list(channels)] = True
    return coalitions
