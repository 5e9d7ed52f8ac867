"""Optuna's own samplers at full resource, each group's width a number of its own."""

from __future__ import annotations

import optuna
from search_clock import Job, Side
from search_table import Table

SAMPLERS = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "nsga2": optuna.samplers.NSGAIISampler,
}


class Plain(Side):
    """Optuna as its users take it: defaults, two objectives, every trial to its end.

    Args:
        grid: The table.
        seed: Of the sampler.
        sampler: One of `SAMPLERS`.
    """

    def __init__(self, grid: Table, seed: int, sampler: str) -> None:
        self.grid = grid
        self.study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=SAMPLERS[sampler](seed=seed)
        )

    def next(self) -> Job:
        """Ask for an architecture."""
        trial = self.study.ask()
        widths = zip(self.grid.names, self.grid.macs.shape, strict=True)
        return Job(trial.number, tuple(trial.suggest_int(name, 0, n - 1) for name, n in widths))

    def complete(self, job: Job, accuracy: float) -> None:
        """Tell both objectives."""
        self.study.tell(job.number, self.grid.losses(job.place, accuracy))
