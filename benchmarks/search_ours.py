"""The search of a study, without Ray: the same shapes, samplers and halving as its ledger puts together."""

from __future__ import annotations

from dataclasses import dataclass

import optuna
from optuna.trial import TrialState
from search_clock import Job, Side
from search_grid import N_TRAIN
from search_table import Grid, GridProjection, Place

from dirprune.architecture import Architecture
from dirprune.halving import PromotingHalving, StoppingHalving
from dirprune.study.shapes import PER_GROUP, Budgeted, PerGroup, Shapes
from dirprune.tuning import storage
from dirprune.tuning.samplers import make_sampler
from dirprune.tuning.samplers.learning import LearningSampler


@dataclass(frozen=True)
class OurOptions:
    """What is chosen of a study's search.

    Attributes:
        architectures: "budgeted" or "per-group".
        max_offset: Of budgeted ones.
        sampler: One of `dirprune.tuning.samplers.SAMPLERS`.
        halving: "promoting", "stopping" or "none".
        reduction_factor: One in this many goes on.
        minimum: As long as fewer trials have reached a rung, the stopping way lets all go on.
        rungs: Passes after which trials are compared.
        first: Whether the dense and the uniform architectures come first.
    """

    architectures: str = "budgeted"
    max_offset: float = 1.0
    sampler: str = "tpe"
    halving: str = "promoting"
    reduction_factor: float = 2.0
    minimum: int = 4
    rungs: tuple[int, ...] = (0, 1)
    first: bool = True


class Ours(Side):
    """A study's search. It asks, reports, halts and tells as `dirprune.tuning.ledger` does.

    Args:
        grid: The table.
        seed: Of the sampler.
        options: What is chosen.
    """

    def __init__(self, grid: Grid, seed: int, options: OurOptions) -> None:
        self.grid = grid
        self.rungs = () if options.halving == "none" else options.rungs
        images = [epochs * N_TRAIN for epochs in self.rungs]
        self.halving = (
            PromotingHalving(images, options.reduction_factor)
            if options.halving == "promoting"
            else StoppingHalving(images, options.reduction_factor, options.minimum)
        )
        projection = GridProjection(grid)
        self.shapes: Shapes = (
            PerGroup(projection)
            if options.architectures == PER_GROUP
            else Budgeted(projection, None, options.max_offset)
        )
        self.study = optuna.create_study(
            directions=["minimize", "minimize"], sampler=make_sampler(options.sampler, seed, 0)
        )
        self._jobs: dict[int, Job] = {}
        if options.first:
            self._enqueue_first_trials()

    def _enqueue_first_trials(self) -> None:
        sizes = dict(zip(self.grid.names, self.grid.costs.n_channels.values(), strict=True))
        for ratio in (1.0, 0.75, 0.5, 0.3):
            place = self.grid.nearest({name: max(1, round(ratio * n)) for name, n in sizes.items()})
            architecture = self.grid.architecture(place)
            self.study.enqueue_trial(
                self.shapes.parameters(architecture),
                user_attrs={storage.ARCHITECTURE: architecture.to_json()},
            )

    def next(self) -> Job:
        """Promote a paused trial, or draw an architecture."""
        if (promoted := self.halving.next_promotion()) is not None:
            self.study._storage.set_trial_user_attr(self._id(promoted), storage.PAUSED_AT, None)
            self._tell_sampler(promoted)
            return self._jobs[promoted]
        trial = self.study.ask()
        drawn = self.shapes.suggest(trial)
        given = trial.user_attrs.get(storage.ARCHITECTURE)
        place: Place = self.grid.nearest(drawn if given is None else Architecture.from_json(given))
        trial.set_user_attr(storage.COSTS, {"macs": int(self.grid.macs[place])})
        self._jobs[trial.number] = Job(trial.number, place)
        self._tell_sampler(trial.number)
        return self._jobs[trial.number]

    def report(self, job: Job, epochs: int, accuracy: float) -> bool:
        """Store what a trial says at a rung, and let the halving decide."""
        images = epochs * N_TRAIN
        losses = self.grid.losses(job.place, accuracy)
        goes_on = self.halving.report(job.number, images, losses)
        store, trial_id = self.study._storage, self._id(job.number)
        store.set_trial_user_attr(trial_id, f"{storage.RUNG}{images}", losses)
        if not goes_on and self.halving.pauses:
            store.set_trial_user_attr(trial_id, storage.PAUSED_AT, images)
        elif not goes_on:
            store.set_trial_user_attr(trial_id, storage.STOPPED_AT, images)
            self.study.tell(job.number, state=TrialState.PRUNED)
        self._tell_sampler(job.number)
        return goes_on

    def complete(self, job: Job, accuracy: float) -> None:
        """Tell both objectives."""
        self.study.tell(job.number, self.grid.losses(job.place, accuracy))

    def _tell_sampler(self, number: int) -> None:
        if isinstance(self.study.sampler, LearningSampler):
            self.study.sampler.learn(self.study, storage.read_trial(self.study, number))

    def _id(self, number: int) -> int:
        return self.study._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
