"""The stopping way of halving: a trial that is not among the best of those that came so far ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dirprune.halving.base import Halving
from dirprune.halving.ranking import is_among_best


class StoppingHalving(Halving):
    """Decide at each rung whether a trial is among the best of those that came so far.

    Trials are compared as soon as they report, without waiting for others [Li et al. 2020, "A System for
    Massively Parallel Hyperparameter Tuning"], by non-dominated rank instead of one metric. Within a rank the
    trial with the larger hypervolume contribution comes first, then the one with the lower number.

    Of k trials at a rung at least ceil(k / reduction_factor) would go on if they came last. So where trials
    come in random order, one in `reduction_factor` goes on or more, on average over the orders, and the best
    so far does in any order. Where each is worse than all before it, as when a sampler gets worse, only the
    first do: those that come before there is a comparison, at least one. `PromotingHalving` lets one in so
    many go on in any order.

    A decision depends only on the last reports at the same rung. The caller owns all trials and tells of each
    once per rung; this class never looks back at trials that were told to go on.

    Args:
        rungs: As in `Halving`.
        reduction_factor: As in `Halving`.
        minimum: As long as fewer trials have reached a rung, all go on; >= 1.
    Raises:
        ValueError: If the rungs do not increase or a number is out of range.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float = 2.0, minimum: int = 4) -> None:
        super().__init__(rungs, reduction_factor)
        if minimum < 1:
            raise ValueError(f"expected a minimum of at least 1 trial, got {minimum}")
        self.minimum = minimum

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
        numbers, table = self.table(rung)
        if len(numbers) < self.minimum:
            return True
        own = numbers.index(trial)
        is_dominated = (table <= table[own]).all(axis=1) & (table < table[own]).any(axis=1)
        if not is_dominated.any():
            return True
        n_survivors = math.ceil(len(numbers) / self.reduction_factor)
        if int(np.count_nonzero(is_dominated)) >= n_survivors:
            return False  # whoever dominates it has a better rank
        return is_among_best(table, own, n_survivors)
