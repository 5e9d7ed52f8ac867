"""The promoting way of halving: every trial pauses at a rung, and the best go on when there is room."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from dirprune.halving.base import Halving
from dirprune.halving.ranking import order_best


class PromotingHalving(Halving):
    """Decide which paused trial goes on.

    Of the n trials that have reached a rung the best floor(n / reduction_factor) may go on, the highest rung
    first [Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", algorithm 2]; the order is
    the one of `order_best`. A trial that is not among them when it reports may be later, when others have
    come that are worse. Every trial is promoted from a rung at most once.

    The caller owns all trials. It asks `next_promotion` before it starts a new one, and when it cannot start
    any more.

    Args:
        rungs: As in `Halving`.
        reduction_factor: As in `Halving`.
    Raises:
        ValueError: If the rungs do not increase or the factor is out of range.
    """

    pauses = True

    def __init__(self, rungs: Sequence[int], reduction_factor: float = 2.0) -> None:
        super().__init__(rungs, reduction_factor)
        self._promoted: dict[int, set[int]] = {rung: set() for rung in self.rungs}
        self._is_searched = False  # since the last report, without finding a trial to promote

    def report(self, trial: int, rung: int, losses: Sequence[float]) -> bool:
        """Take a trial's losses at a rung; the trial goes on at once if it is the next to be promoted anyway.

        Args:
            trial: Number of the trial.
            rung: One of the rungs.
            losses: One finite loss for each objective, lower is better.
        Returns:
            Whether the trial goes on; else it pauses.
        Raises:
            ValueError: If the rung is unknown, or the losses are not finite or not as many as before.
        """
        self.remember(trial, rung, losses)
        if trial in self._promoted[rung]:  # it has lost its worker since, and reports again
            return True
        if self._find_promotion() != (rung, trial):
            return False
        self._promoted[rung].add(trial)
        return True

    def remember(self, trial: int, rung: int, losses: Sequence[float]) -> None:
        """Take a trial's losses at a rung."""
        super().remember(trial, rung, losses)
        self._is_searched = False

    @property
    def has_promotion(self) -> bool:
        """Whether a paused trial may go on now."""
        return self._find_promotion() is not None

    def next_promotion(self) -> int | None:
        """Return the trial that goes on now, the best of the highest rung; it counts as promoted."""
        found = self._find_promotion()
        if found is None:
            return None
        rung, trial = found
        self._promoted[rung].add(trial)
        return trial

    def resume(self, trial: int, rung: int, losses: Sequence[float], *, is_paused: bool) -> None:
        """Take what an earlier driver heard; a trial that does not wait at a rung is not promoted from it."""
        self.remember(trial, rung, losses)
        if not is_paused:
            self._promoted[rung].add(trial)

    def _find_promotion(self) -> tuple[int, int] | None:
        if self._is_searched:
            return None
        for rung in reversed(self.rungs):
            n_allowed = math.floor(len(self._reports[rung]) / self.reduction_factor)
            if n_allowed == 0:
                continue
            numbers, table = self.table(rung)
            for row in itertools.islice(order_best(table), n_allowed):
                if numbers[row] not in self._promoted[rung]:
                    return rung, numbers[row]
        self._is_searched = True
        return None
