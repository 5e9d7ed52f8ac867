"""What every way of halving has: what trials reported at the rungs of a study, checked."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class Halving(ABC):
    """Keep the last losses of every trial at every rung. Not thread-safe.

    Args:
        rungs: Resources at which trials are compared, in training images; increasing, >= 0.
        reduction_factor: One in `reduction_factor` trials goes on; > 1.
    Attributes:
        pauses: Whether a trial that does not go on may be asked to later.
    Raises:
        ValueError: If the rungs do not increase or the factor is out of range.
    """

    pauses = False

    def __init__(self, rungs: Sequence[int], reduction_factor: float) -> None:
        if any(rung < 0 for rung in rungs) or any(b <= a for a, b in itertools.pairwise(rungs)):
            raise ValueError(f"expected increasing rungs >= 0, got {list(rungs)}")
        if not (math.isfinite(reduction_factor) and reduction_factor > 1):
            raise ValueError(f"expected a reduction factor > 1, got {reduction_factor}")
        self.rungs = tuple(rungs)
        self.reduction_factor = reduction_factor
        self._reports: dict[int, dict[int, tuple[float, ...]]] = {rung: {} for rung in self.rungs}

    @abstractmethod
    def report(self, trial: int, rung: int, losses: Sequence[float]) -> bool:
        """Take a trial's losses at a rung; return whether the trial goes on."""

    @property
    def has_promotion(self) -> bool:
        """Whether a paused trial may go on now."""
        return False

    def next_promotion(self) -> int | None:
        """Return the paused trial that goes on now, None if none may; it counts as promoted."""
        return None

    def remember(self, trial: int, rung: int, losses: Sequence[float]) -> None:
        """Take a trial's losses at a rung without deciding anything.

        Args:
            trial: Number of the trial.
            rung: One of the rungs.
            losses: One finite loss for each objective, lower is better; they replace earlier ones.
        Raises:
            ValueError: If the rung is unknown, or the losses are not finite or not as many as before.
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

    def resume(self, trial: int, rung: int, losses: Sequence[float], *, is_paused: bool) -> None:
        """Take what an earlier driver heard at a rung and what it decided.

        Args:
            trial: Number of the trial.
            rung: One of the rungs.
            losses: One finite loss for each objective, lower is better.
            is_paused: Whether the trial waits there; else it went on, or ended.
        Raises:
            ValueError: As `remember` does.
        """
        self.remember(trial, rung, losses)

    def table(self, rung: int) -> tuple[list[int], NDArray[np.float64]]:
        """Return the numbers of the trials that reached a rung, sorted, and their losses, a row for each."""
        numbers = sorted(self._reports[rung])
        return numbers, np.array([self._reports[rung][number] for number in numbers])
