"""Ray Tune's OptunaSearch and ASHA as their users put them together, on the simulated clock."""

from __future__ import annotations

from types import SimpleNamespace

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.optuna import OptunaSearch
from search_clock import Job, Side
from search_grid import EPOCHS
from search_table import Table


class OptunaSearchAsha(Side):
    """OptunaSearch on both objectives; ASHA stops by the accuracy, which is all that it can compare.

    Ray tells the searcher of a stopped trial as of a finished one, with its last values. The front is made of
    trials at full resource.

    Args:
        grid: The table.
        seed: Of the search.
        reduction_factor: Of ASHA; 4 is Ray's default.
    """

    rungs = (1,)

    def __init__(self, grid: Table, seed: int, reduction_factor: float) -> None:
        self.grid = grid
        shape = zip(grid.names, grid.macs.shape, strict=True)
        self.search = OptunaSearch(
            {name: tune.randint(0, n) for name, n in shape},
            metric=["accuracy", "macs"],
            mode=["max", "min"],
            seed=seed,
        )
        self.scheduler = AsyncHyperBandScheduler(
            time_attr="epochs",
            metric="accuracy",
            mode="max",
            max_t=EPOCHS[-1],
            grace_period=1,
            reduction_factor=reduction_factor,
        )
        self._n_trials = 0

    def next(self) -> Job:
        """Ask for an architecture."""
        number = self._n_trials
        self._n_trials += 1
        found = self.search.suggest(str(number))
        self.scheduler.on_trial_add(None, _trial(number))
        return Job(number, tuple(int(found[name]) for name in self.grid.names))

    def report(self, job: Job, epochs: int, accuracy: float) -> bool:
        """Let ASHA decide; what it stops is complete to the searcher."""
        result = self._result(job, epochs, accuracy)
        goes_on = self.scheduler.on_trial_result(None, _trial(job.number), result) == TrialScheduler.CONTINUE
        if not goes_on:
            self.search.on_trial_complete(str(job.number), result)
        return bool(goes_on)

    def complete(self, job: Job, accuracy: float) -> None:
        """Tell both."""
        result = self._result(job, EPOCHS[-1], accuracy)
        self.scheduler.on_trial_complete(None, _trial(job.number), result)
        self.search.on_trial_complete(str(job.number), result)

    def _result(self, job: Job, epochs: int, accuracy: float) -> dict[str, float]:
        return {"accuracy": accuracy, "macs": self.grid.losses(job.place, accuracy)[1], "epochs": epochs}


def _trial(number: int) -> SimpleNamespace:
    """Return all that the scheduler asks of a trial."""
    return SimpleNamespace(trial_id=str(number))
