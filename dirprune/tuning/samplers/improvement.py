"""How much hypervolume a configuration is expected to add to a front."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dirprune.pareto import front_mask, hypervolume

Floats = NDArray[np.float64]


def compute_improvements(points: Floats, front: Floats, reference: Floats) -> Floats:
    """Return the hypervolume that each of some points alone would add to a front.

    Args:
        points: Losses, shape (n_points, n_objectives).
        front: Losses of what is there, shape (n, n_objectives), dominated points among them or not.
        reference: The hypervolume's corner, shape (n_objectives,).
    Returns:
        Shape (n_points,), >= 0.
    """
    front = front[np.all(front < reference, axis=1)]
    front = front[front_mask(front)] if len(front) else front
    if len(reference) == 2:
        return _compute_in_two(points, front, reference)
    before = hypervolume(front, reference)
    added = [hypervolume(np.vstack([front, point]), reference) - before for point in points]
    return np.maximum(np.array(added, dtype=np.float64), 0.0)


def _compute_in_two(points: Floats, front: Floats, reference: Floats) -> Floats:
    """Add up strips between neighbours of the front; exact, and without a loop over points."""
    front = front[np.lexsort((front[:, 1], front[:, 0]))]
    left = np.concatenate([[-np.inf], front[:, 0]])
    right = np.concatenate([front[:, 0], [reference[0]]])
    height = np.concatenate([[reference[1]], front[:, 1]])  # what is dominated begins there
    width = np.maximum(right - np.maximum(left, points[:, :1]), 0.0)
    return np.asarray((width * np.maximum(height - points[:, 1:], 0.0)).sum(axis=1))
