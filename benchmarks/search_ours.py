"""The search of a study, without Ray: the same shapes, samplers and halving as its ledger puts together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState
from search_clock import FORWARD, Job, Side
from search_grid import N_TRAIN
from search_table import CHANCE, DATA, Place, Table, TableProjection

from dirprune.allocation import Allocation, Curve, choose_spread
from dirprune.architecture import Architecture
from dirprune.halving import PromotingHalving, StoppingHalving
from dirprune.sensitivity import MOST_IMAGES
from dirprune.study.ranking import MethodScores
from dirprune.study.shapes import PER_GROUP, RANKED, Budgeted, PerGroup, Ranked, Shapes, Suggests
from dirprune.study.space import CURVES, PATH, SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.study.warm_starts import choose
from dirprune.tuning import storage
from dirprune.tuning.samplers import make_sampler
from dirprune.tuning.samplers.learning import LearningSampler
from dirprune.tuning.samplers.problem import StudyProblem

PATH_TIMES = 2
"""What a path costs, in curves: 4.8 s and 2.5 s on LeNet-5 (`benchmarks/RESULTS.md`)."""
PASSES = 6
"""Forward passes of a cut, at most: of the dense network, to each of four refitted layers, and to judge."""


@dataclass(frozen=True)
class OurOptions:
    """What is chosen of a study's search.

    Attributes:
        architectures: "budgeted", "ranked" or "per-group".
        max_offset: Of budgeted and ranked ones.
        sampler: One of `dirprune.tuning.samplers.SAMPLERS`.
        halving: "promoting", "stopping" or "none".
        reduction_factor: One in this many goes on.
        minimum: As long as fewer trials have reached a rung, the stopping way lets all go on.
        rungs: Passes after which trials are compared.
        first: Whether the uniform architectures come before the sampler's.
        spare_first: Whether these and the warm starts always go on.
        warm_starts: Architectures that come before all others.
        warm_starts_from: "curves" of sensitivity, or the "path" of greedy elimination.
        learning: Whether the sampler learns from trials that were stopped or are paused, by predicted losses;
            else it sees the study as its storage has it.
    """

    architectures: str = "per-group"
    max_offset: float = 1.0
    sampler: str = "ehvi"
    halving: str = "stopping"
    reduction_factor: float = 2.0
    minimum: int = 4
    rungs: tuple[int, ...] = (0, 1)
    first: bool = True
    spare_first: bool = True
    warm_starts: int = 16
    warm_starts_from: str = CURVES
    learning: bool = True


class GridProblem(StudyProblem):
    """What a study knows before a trial, with MACs as fractions of the dense network's."""

    def __init__(self, spec: StudySpec, shapes: Shapes, grid: Table) -> None:
        dense = int(grid.macs.max())
        super().__init__(spec, shapes, grid.costs, {"val_accuracy": CHANCE, "macs": dense})
        self.units = np.array([1.0, dense])
        self.reference = self.reference / self.units

    def look(
        self, trial: Suggests, architecture: Mapping[str, int] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Return features and losses."""
        found = super().look(trial, architecture)
        return None if found is None else (found[0], found[1] / self.units)


def _make_shapes(grid: Table, options: OurOptions) -> Shapes:
    projection = TableProjection(grid)
    if options.architectures == PER_GROUP:
        return PerGroup(projection)
    if options.architectures == RANKED:
        scores = MethodScores({"magnitude": _read(grid, "scores")})
        return Ranked(projection, None, options.max_offset, scores)
    return Budgeted(projection, None, options.max_offset)


def _find_warm_starts(grid: Table, spec: StudySpec, options: OurOptions) -> list[Allocation]:
    """Return them as a study finds them, of the grid's architectures."""
    if options.warm_starts_from == CURVES:
        curves = {name: Curve(**curve) for name, curve in _read(grid, "curves").items()}
        allowed = dict(zip(grid.names, grid.widths, strict=True))
        return choose(spec, grid.costs, curves, allowed, options.warm_starts)
    found: dict[Place, Allocation] = {}
    for text, loss in _read(grid, "path").items():
        kept = map(int, text.split("-"))
        place = tuple(
            next(i for i, width in enumerate(widths) if width >= n)
            for widths, n in zip(grid.widths, kept, strict=True)
        )
        if place not in found:
            found[place] = Allocation(grid.architecture(place), loss, float(grid.macs[place]))
    return choose_spread(list(found.values()), options.warm_starts, float(grid.macs.max()))


def _read(grid: Table, what: str) -> Any:
    """Return what `search_grid.py` wrote of the network."""
    path = DATA / f"{grid.subject.network}_{what}.json"
    if not path.exists():
        raise click.ClickException(f"expected {path}; search_grid.py {what} writes it")
    return json.loads(path.read_text(encoding="utf-8"))


class Ours(Side):
    """A study's search. It asks, reports, halts and tells as `dirprune.tuning.ledger` does.

    Args:
        grid: The table.
        seed: Of the sampler.
        options: What is chosen.
    """

    def __init__(self, grid: Table, seed: int, options: OurOptions) -> None:
        self.grid, self.options = grid, options
        self.rungs = () if options.halving == "none" else options.rungs
        images = [epochs * N_TRAIN for epochs in self.rungs]
        self.halving = (
            PromotingHalving(images, options.reduction_factor)
            if options.halving == "promoting"
            else StoppingHalving(images, options.reduction_factor, options.minimum)
        )
        self.shapes = _make_shapes(grid, options)
        self.space = SearchSpace(methods={"magnitude": {}}, architectures=options.architectures)
        spec = StudySpec(name="grid", network=grid.subject.network, data=grid.subject.data, space=self.space)
        problem = GridProblem(spec, self.shapes, grid)
        sampler = make_sampler(options.sampler, seed, 0, problem=problem)
        if not options.learning and isinstance(sampler, LearningSampler):
            sampler = sampler.base
        self.study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        self._jobs: dict[int, Job] = {}
        self._first: set[int] = set()
        if options.warm_starts:
            found = _find_warm_starts(grid, spec, options)
            self._enqueue(allocation.architecture for allocation in found)
            n_cuts = sum(len(widths) - 1 for widths in grid.widths)
            self.preparation = n_cuts * MOST_IMAGES * PASSES * FORWARD
            if options.warm_starts_from == PATH:
                self.preparation *= PATH_TIMES
        if options.first:
            sizes = dict(zip(self.grid.names, self.grid.costs.n_channels.values(), strict=True))
            ratios = (0.75, 0.5, 0.3)  # the dense network is not trained in a study, and gains nothing
            self._enqueue({name: max(1, round(r * n)) for name, n in sizes.items()} for r in ratios)

    def _enqueue(self, architectures: Iterable[Mapping[str, int]]) -> None:
        for proposed in architectures:
            architecture = self.grid.architecture(self.grid.nearest(proposed))
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
        drawn = self.space.suggest(trial, self.shapes, trial.number, "sampler").architecture
        given = trial.user_attrs.get(storage.ARCHITECTURE)
        place: Place = self.grid.nearest(drawn if given is None else Architecture.from_json(given))
        trial.set_user_attr(storage.COSTS, {"macs": int(self.grid.macs[place])})
        self._jobs[trial.number] = Job(trial.number, place)
        if given is not None and self.options.spare_first:
            self._first.add(trial.number)
        self._tell_sampler(trial.number)
        return self._jobs[trial.number]

    def report(self, job: Job, epochs: int, accuracy: float) -> bool:
        """Store what a trial says at a rung, and let the halving decide."""
        images = epochs * N_TRAIN
        losses = self.grid.losses(job.place, accuracy)
        if job.number in self._first:
            self.halving.resume(job.number, images, losses, is_paused=False)
            goes_on = True
        else:
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
