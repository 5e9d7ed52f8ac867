"""The order of trials at a rung: by non-dominated rank, then by hypervolume contribution, then by number."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dirprune.pareto import hypervolume_contributions, nondominated_rank

Losses = NDArray[np.float64]

MARGIN = 0.1  # of the reference point beyond the worst values at a rung, as a fraction of their range
MAX_PEERS = {2: None, 3: 400}
"""Most trials of one rank whose contributions are computed, by the number of objectives; None: all."""
MAX_PEERS_BEYOND = 100
"""The same of more objectives than these."""


def order_best(losses: Losses) -> Iterator[int]:
    """Yield rows from the best to the worst; what is not asked for is not computed.

    Contributions are measured in each objective's range at the rung, so that units do not matter. Where there
    are more than two objectives and so many trials of a rank that contributions would take too long, the
    crowding distance [Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm", III.B] comes in
    their place.

    Args:
        losses: Shape (n_trials, n_objectives), finite, rows in the order of the trials' numbers.
    """
    rank, scaled = nondominated_rank(losses), _scale(losses)
    ends = np.cumsum(np.bincount(rank))
    rows = np.argsort(rank, kind="stable")
    for begin, end in itertools.pairwise([0, *ends]):
        yield from _order_peers(rows[begin:end], scaled)


def is_among_best(losses: Losses, row: int, n_best: int) -> bool:
    """Return whether a row is one of the first that `order_best` yields.

    Args:
        losses: As there.
        row: The row.
        n_best: How many of the first.
    """
    rank = nondominated_rank(losses)
    (peers,) = np.nonzero(rank == rank[row])
    n_left = n_best - int(np.count_nonzero(rank < rank[row]))
    if n_left <= 0 or n_left >= len(peers):
        return n_left > 0
    return row in itertools.islice(_order_peers(peers, _scale(losses)), n_left)


def _scale(losses: Losses) -> Losses:
    """Return losses in their ranges, in [0, 1]."""
    lowest, highest = losses.min(axis=0), losses.max(axis=0)
    scaled: Losses = (losses - lowest) / np.where(highest > lowest, highest - lowest, 1.0)
    return scaled


def _order_peers(peers: NDArray[np.int64], scaled: Losses) -> Iterator[int]:
    """Yield the rows of one rank, the one that would be missed most first, of equal ones the lower number."""
    n_objectives = scaled.shape[1]
    most = MAX_PEERS.get(n_objectives, MAX_PEERS_BEYOND)
    if n_objectives == 1:
        missed = np.zeros(len(peers))  # they are equal
    elif most is None or len(peers) <= most:
        missed = hypervolume_contributions(scaled[peers], np.full(n_objectives, 1.0 + MARGIN))
    else:
        missed = _measure_crowding(scaled[peers])
    missed = missed.round(9)  # equal ones must not be told apart by rounding errors
    for row in peers[np.argsort(-missed, kind="stable")]:
        yield int(row)


def _measure_crowding(points: Losses) -> Losses:
    """Return how far apart each point's neighbours are, summed over objectives; infinite at the ends."""
    distances = np.zeros(len(points))
    for column in points.T:
        order = np.argsort(column, kind="stable")
        values = column[order]
        distances[order[1:-1]] += values[2:] - values[:-2]
        distances[[column.argmin(), column.argmax()]] = np.inf  # of equal ones the first
    return distances
