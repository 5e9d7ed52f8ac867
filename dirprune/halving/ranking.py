"""The order of trials at a rung: by non-dominated rank, then by hypervolume contribution, then by number."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dirprune.pareto import hypervolume_contributions, nondominated_rank

MARGIN = 0.1  # of the reference point beyond the worst values at a rung, as a fraction of their range


def order_best(losses: NDArray[np.float64]) -> Iterator[int]:
    """Yield rows from the best to the worst; what is not asked for is not computed.

    Contributions are measured in each objective's range at the rung, so that units do not matter.

    Args:
        losses: Shape (n_trials, n_objectives), finite, rows in the order of the trials' numbers.
    """
    rank = nondominated_rank(losses)
    lowest, highest = losses.min(axis=0), losses.max(axis=0)
    scaled = (losses - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
    corner = np.full(losses.shape[1], 1.0 + MARGIN)
    for level in range(int(rank.max()) + 1):
        (peers,) = np.nonzero(rank == level)
        contributions = hypervolume_contributions(scaled[peers], corner)
        contributions = contributions.round(9)  # equal ones must not be told apart by rounding errors
        for row in peers[np.argsort(-contributions, kind="stable")]:  # stable: the lower number first
            yield int(row)
