"""What a sampler knows of a study: the losses of all trials at all stages, and which trials matter most."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from dirprune.halving.ranking import order_best
from dirprune.pareto import to_losses
from dirprune.trial import has_diverged
from dirprune.tuning.samplers.prediction import predict_final
from dirprune.tuning.storage import REASON, RUNG

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Kind(IntEnum):
    """What a trial can teach."""

    NOTHING = 0
    LOSSES = 1
    RUNNING = 2
    INFEASIBLE = 3


class KnownTrials:
    """Keep the last word on every trial. What it says depends on the trials alone, not on their order.

    Args:
        directions: "maximize" or "minimize" for each objective.
    Attributes:
        trials: By number, those that a sampler may be shown.
    """

    def __init__(self, directions: Sequence[str]) -> None:
        self.directions = tuple(directions)
        self.trials: dict[int, FrozenTrial] = {}
        self._rungs: list[int] = []
        self._table = np.full((64, 1, len(self.directions)), np.nan)
        self._kinds = np.full(64, Kind.NOTHING)

    def take(self, trial: FrozenTrial) -> None:
        """Take a trial as it is now.

        One whose training diverged is as bad as one that a limit forbids; of any other that failed, the
        machine may be at fault, and it teaches nothing.
        """
        while trial.number >= len(self._kinds):
            self._table = np.concatenate([self._table, np.full_like(self._table, np.nan)])
            self._kinds = np.concatenate([self._kinds, np.full_like(self._kinds, Kind.NOTHING)])
        self._table[trial.number] = np.nan
        kind = self._note_losses(trial)
        self._kinds[trial.number] = kind
        if kind == Kind.NOTHING:
            self.trials.pop(trial.number, None)
        else:
            self.trials[trial.number] = trial

    def find(self, kind: Kind) -> Numbers:
        """Return the numbers of the trials of a kind, increasing."""
        return np.flatnonzero(self._kinds == kind)

    def predict(self) -> Floats:
        """Return final or predicted losses by number, NaN where there are none; see `predict_final`."""
        return predict_final(self._table)

    def read_final(self) -> Floats:
        """Return final losses by number, NaN where there are none."""
        return self._table[:, -1]

    def _note_losses(self, trial: FrozenTrial) -> Kind:
        if trial.state == TrialState.FAIL and has_diverged(trial.user_attrs.get(REASON, "")):
            return Kind.INFEASIBLE
        if trial.state in (TrialState.FAIL, TrialState.WAITING):
            return Kind.NOTHING
        kind = Kind.RUNNING if trial.state == TrialState.RUNNING else Kind.NOTHING
        for name, losses in trial.user_attrs.items():
            if name.startswith(RUNG):
                stage = self._find_stage(int(name.removeprefix(RUNG)))  # may replace the table
                self._table[trial.number, stage] = losses
                kind = Kind.LOSSES
        if trial.state == TrialState.COMPLETE:
            self._table[trial.number, -1] = to_losses(trial.values, self.directions)[0]
            kind = Kind.LOSSES
        return Kind.INFEASIBLE if any(value > 0 for value in trial.constraints.values()) else kind

    def _find_stage(self, rung: int) -> int:
        if rung not in self._rungs:
            self._rungs = sorted([*self._rungs, rung])
            self._table = np.insert(self._table, self._rungs.index(rung), np.nan, axis=1)
        return self._rungs.index(rung)


def choose_best(losses: Floats, numbers: Numbers, n_best: int) -> list[int]:
    """Return the numbers of the best trials, in the order of `order_best`.

    Args:
        losses: By number.
        numbers: The trials to choose from, increasing.
        n_best: How many.
    """
    if len(numbers) == 0:
        return []
    return [int(numbers[row]) for row in islice(order_best(losses[numbers]), n_best)]
