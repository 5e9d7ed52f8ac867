"""Dominance, Pareto front, ranks and hypervolume of points in objective space: losses, lower is better.

Moocore computes them where it is installed; the numpy versions give the same results, more slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import moocore
except ImportError:  # compiled, so not to be had everywhere
    moocore = None

Direction = Literal["maximize", "minimize"]
Losses = NDArray[np.float64]


def to_losses(values: ArrayLike, directions: Sequence[str]) -> Losses:
    """Turn objective values into losses by changing the sign of those to maximise.

    Args:
        values: Shape (n_points, n_objectives); one point may be given as (n_objectives,).
        directions: "maximize" or "minimize" for each objective.
    Returns:
        Losses, shape (n_points, n_objectives), float64.
    Raises:
        ValueError: If a direction is unknown, or there is not one for each objective.
    """
    for direction in directions:
        if direction not in get_args(Direction):
            raise ValueError(f"expected the direction 'maximize' or 'minimize', got {direction!r}")
    losses = np.array(values, dtype=np.float64)
    losses = losses.reshape(-1, len(directions)) if losses.size == 0 else np.atleast_2d(losses)
    if losses.ndim != 2 or losses.shape[1] != len(directions):
        raise ValueError(
            f"expected {len(directions)} objectives per point, got values of shape {losses.shape}"
        )
    is_maximised = [direction == "maximize" for direction in directions]
    losses[:, is_maximised] = 0.0 - losses[:, is_maximised]  # 0 - 0 is 0, where -(0) would be -0
    return losses


def dominates(a: ArrayLike, b: ArrayLike) -> bool:
    """Return whether `a` is no worse than `b` in every objective and better in at least one.

    Args:
        a: Losses of one point, shape (n_objectives,).
        b: Losses of the other, likewise.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return bool(np.all(first <= second) and np.any(first < second))


def front_mask(losses: ArrayLike) -> NDArray[np.bool_]:
    """Return which points no other point dominates, shape (n_points,); every copy of such a point counts.

    Args:
        losses: Shape (n_points, n_objectives); without NaN.
    Raises:
        ValueError: If the losses hold NaN or are no table.
    """
    points = _check_losses(losses)
    if moocore is not None and len(points) > 0:
        return np.asarray(moocore.is_nondominated(points, keep_weakly=True), dtype=bool)
    return _compute_dominance(points).sum(axis=0) == 0


def nondominated_rank(losses: ArrayLike) -> NDArray[np.int64]:
    """Return each point's rank: 0 on the front, 1 on the front of what is left without rank 0, and so on.

    Args:
        losses: Shape (n_points, n_objectives); without NaN.
    Returns:
        Ranks, shape (n_points,): `rank[i]` is that of point i. Equal points have the same rank.
    Raises:
        ValueError: If the losses hold NaN or are no table.
    """
    points = _check_losses(losses)
    if moocore is not None and len(points) > 0:
        return np.asarray(moocore.pareto_rank(points), dtype=np.int64)
    is_dominated_by = _compute_dominance(points)
    n_dominators = is_dominated_by.sum(axis=0)
    ranks = np.full(len(points), -1, dtype=np.int64)
    rank = 0
    while np.any(ranks < 0):
        is_next = (n_dominators == 0) & (ranks < 0)
        ranks[is_next] = rank
        n_dominators = n_dominators - is_dominated_by[is_next].sum(axis=0)
        rank += 1
    return ranks


def interval_front_mask(low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """Return which points are on the front where one objective is known as an interval only.

    Losses whose intervals overlap are equal: a point dominates another one if it is surely worse nowhere and
    surely better somewhere. That is not transitive, because of three intervals the outer two may be apart
    while each overlaps the middle one. So the front is the one set in which no point dominates another and
    of which one dominates each point outside: a point that only points outside dominate is on it.

    Args:
        low: Least losses, shape (n_points, n_objectives); without NaN.
        high: Largest losses, likewise; where they equal `low` everywhere, this is `front_mask`.
    Raises:
        ValueError: If the losses hold NaN or are no tables of one shape, an interval is upside down, or
            those of several objectives have a width: points could then dominate each other in a circle.
    """
    least, largest = _check_losses(low), _check_losses(high)
    if least.shape != largest.shape or np.any(least > largest):
        raise ValueError("expected intervals from low to high, one for each loss")
    if np.count_nonzero(np.any(least < largest, axis=0)) > 1:
        raise ValueError("expected intervals in one objective at most")
    dominates_other = np.array([surely_dominates(least, largest, place) for place in range(len(least))])
    is_front = np.zeros(len(least), dtype=bool)
    is_open = ~is_front
    while is_open.any():
        is_next = is_open & ~dominates_other[is_open].any(axis=0)
        is_front |= is_next
        is_open &= ~is_next & ~dominates_other[is_next].any(axis=0)
    return is_front


def surely_dominates(least: Losses, largest: Losses, place: int) -> NDArray[np.bool_]:
    """Return which points the one at a place dominates by the intervals of losses, shape (n_points,).

    Args:
        least: Least losses, shape (n_points, n_objectives).
        largest: Largest losses, likewise.
        place: Of the point.
    """
    is_worse_nowhere = np.all(least[place] <= largest, axis=1)
    return is_worse_nowhere & np.any(largest[place] < least, axis=1)


def hypervolume(losses: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume of what the points dominate, up to a fixed reference point.

    Args:
        losses: Shape (n_points, n_objectives). A point that is not strictly better than the reference in
            every objective counts zero.
        reference: Losses of the reference point, shape (n_objectives,), finite.
    Returns:
        The volume, >= 0, in the product of the objectives' units.
    Raises:
        ValueError: If the losses hold NaN or -inf, or the reference does not fit or is not finite.
    """
    points, corner = _check_losses(losses), _check_reference(losses, reference)
    return _compute_volume(points[_is_inside(points, corner)], corner)


def hypervolume_contributions(losses: ArrayLike, reference: ArrayLike) -> Losses:
    """Return the hypervolume that is lost when a point is taken away, for each point.

    Args:
        losses: As in `hypervolume`.
        reference: As in `hypervolume`.
    Returns:
        Contributions, shape (n_points,), >= 0; zero for dominated points and for points with a copy.
    Raises:
        ValueError: As `hypervolume`.
    """
    points, corner = _check_losses(losses), _check_reference(losses, reference)
    contributions = np.zeros(len(points))
    (inside,) = np.nonzero(_is_inside(points, corner))
    if len(inside) == 0:
        return contributions
    points = points[inside]
    if moocore is not None and points.shape[1] > 1:  # moocore has no contributions of one objective
        found = moocore.hv_contributions(points, ref=corner, ignore_dominated=False)
        contributions[inside] = np.maximum(found, 0.0)
        return contributions
    whole = _compute_volume(points, corner)
    is_front = _compute_dominance(points).sum(axis=0) == 0
    for place, index in enumerate(inside):
        has_copy = np.all(points == points[place], axis=1).sum() > 1
        if is_front[place] and not has_copy:
            contributions[index] = max(0.0, whole - _compute_volume(np.delete(points, place, axis=0), corner))
    return contributions


def _check_losses(losses: ArrayLike) -> Losses:
    points = np.ascontiguousarray(losses, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"expected losses of shape (n_points, n_objectives), got {points.shape}")
    if np.isnan(points).any():
        raise ValueError("expected losses without NaN")
    return points


def _check_reference(losses: ArrayLike, reference: ArrayLike) -> Losses:
    corner = np.asarray(reference, dtype=np.float64)
    n_objectives = np.shape(losses)[1]
    if corner.shape != (n_objectives,) or not np.isfinite(corner).all():
        raise ValueError(f"expected a reference point of {n_objectives} finite losses, got {corner.tolist()}")
    return corner


def _is_inside(points: Losses, corner: Losses) -> NDArray[np.bool_]:
    if np.isneginf(points).any():
        raise ValueError("expected losses that are not -inf: their hypervolume would be infinite")
    return np.all(points < corner, axis=1)


def _compute_dominance(points: Losses) -> NDArray[np.bool_]:
    """Return a table, shape (n_points, n_points), whose entry [i, j] says whether i dominates j."""
    table = np.zeros((len(points), len(points)), dtype=bool)
    for place, point in enumerate(points):
        table[place] = np.all(point <= points, axis=1) & np.any(point < points, axis=1)
    return table


def _compute_volume(points: Losses, corner: Losses) -> float:
    """Return the hypervolume of points that are all strictly better than the corner."""
    if len(points) == 0:
        return 0.0
    if moocore is not None:
        library: Any = moocore
        return float(library.hypervolume(points, ref=corner))
    return _slice_volume(points, corner)


def _slice_volume(points: Losses, corner: Losses) -> float:
    """Add up slabs along the last objective, each as thick as the step to the next point."""
    if points.shape[1] == 1:
        return float(corner[0] - points.min())
    points = points[np.argsort(points[:, -1], kind="stable")]
    steps = np.diff(np.append(points[:, -1], corner[-1]))
    return sum(
        float(step) * _slice_volume(points[: place + 1, :-1], corner[:-1])
        for place, step in enumerate(steps)
        if step > 0
    )
