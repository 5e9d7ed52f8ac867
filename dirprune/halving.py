"""Asynchronous successive halving on the Pareto front: which trials go on at a rung. Pure logic, no Ray."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from dirprune.pareto import hypervolume_contributions, nondominated_rank

MARGIN = 0.1  # of the reference point beyond the worst values at a rung, as a fraction of their range


class StoppingHalving:
    """Decide at each rung whether a trial is among the best of those that came so far.

    Trials are compared as soon as they report, without waiting for others [Li et al. 2020, "A System for
    Massively Parallel Hyperparameter Tuning"], by non-dominated rank instead of one metric. Within a rank the
    trial with the larger hypervolume contribution comes first, then the one with the lower number; the
    contribution is measured in each objective's range at the rung, so that units do not matter.

    A decision depends only on the last reports at the same rung. The caller owns all trials and tells of each
    once per rung; this class never looks back at trials that were told to go on. Not thread-safe.

    Args:
        rungs: Resources at which trials are compared, in training images; increasing, >= 0.
        reduction_factor: One in `reduction_factor` trials goes on; > 1.
        minimum: As long as fewer trials have reached a rung, all go on; >= 1.
    Raises:
        ValueError: If the rungs do not increase or a number is out of range.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float = 2.0, minimum: int = 4) -> None:
        if any(rung < 0 for rung in rungs) or any(b <= a for a, b in itertools.pairwise(rungs)):
            raise ValueError(f"expected increasing rungs >= 0, got {list(rungs)}")
        if not (math.isfinite(reduction_factor) and reduction_factor > 1):
            raise ValueError(f"expected a reduction factor > 1, got {reduction_factor}")
        if minimum < 1:
            raise ValueError(f"expected a minimum of at least 1 trial, got {minimum}")
        self.rungs = tuple(rungs)
        self.reduction_factor = reduction_factor
        self.minimum = minimum
        self._reports: dict[int, dict[int, tuple[float, ...]]] = {rung: {} for rung in self.rungs}

    def report(self, trial: int, rung: int, losses: Sequence[float]) -> bool:
        """Take a trial's losses at a rung and decide.

        Reporting the same trial at the same rung again, as a resumed trial does, replaces its losses.

        Args:
            trial: Number of the trial.
            rung: One of the rungs.
            losses: One finite loss for each objective, lower is better.
        Returns:
            Whether the trial goes on. A trial that none at the rung dominates always does.
        Raises:
            ValueError: If the rung is unknown, or the losses are not finite or not as many as before.
        """
        self.remember(trial, rung, losses)
        reached = self._reports[rung]
        if len(reached) < self.minimum:
            return True
        numbers = sorted(reached)
        table = np.array([reached[number] for number in numbers])
        rank = nondominated_rank(table)
        own = numbers.index(trial)
        n_survivors = math.ceil(len(numbers) / self.reduction_factor)
        return bool(rank[own] == 0) or _find_place(table, rank, own) < n_survivors

    def remember(self, trial: int, rung: int, losses: Sequence[float]) -> None:
        """Take a trial's losses at a rung that was decided before, as a resumed study does.

        Args and raised errors are those of `report`.
        """
        if rung not in self._reports:
            raise ValueError(f"expected one of the rungs {list(self.rungs)}, got {rung}")
        values = tuple(float(loss) for loss in losses)
        if not values or not all(map(math.isfinite, values)):
            raise ValueError(f"expected finite losses of trial {trial} at rung {rung}, got {list(values)}")
        reached = self._reports[rung]
        n_objectives = len(next(iter(reached.values()), values))
        if len(values) != n_objectives:
            raise ValueError(f"expected {n_objectives} losses of trial {trial}, got {len(values)}")
        reached[trial] = values


def _find_place(table: np.ndarray, rank: np.ndarray, own: int) -> int:
    """Return the place, from 0, of row `own` of a table whose rows are in the order of trial numbers.

    Args:
        table: Losses, shape (n_trials, n_objectives).
        rank: Non-dominated ranks, shape (n_trials,).
        own: Row whose place is asked for.
    """
    lowest, highest = table.min(axis=0), table.max(axis=0)
    spread = np.where(highest > lowest, highest - lowest, 1.0)
    (peers,) = np.nonzero(rank == rank[own])
    scaled = (table[peers] - lowest) / spread
    contributions = hypervolume_contributions(scaled, np.full(table.shape[1], 1.0 + MARGIN))
    contributions = contributions.round(9)  # equal ones must not be told apart by rounding errors
    order = np.argsort(-contributions, kind="stable")  # stable: the lower number first
    n_better = int((rank < rank[own]).sum())
    return n_better + int(np.flatnonzero(peers[order] == own)[0])
