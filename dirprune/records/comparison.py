"""Studies side by side: groups of repetitions, one reference point for all, and what each has within budgets.

Nothing here asks whether the studies may be compared: see `comparability`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import mean, stdev
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dirprune.errors import ConfigurationError
from dirprune.records.front import choose_best, find_comparable, find_cost, find_judged
from dirprune.records.hypervolume import compute_hypervolume, draw_hypervolumes
from dirprune.records.record import TrialRecord
from dirprune.study.floor import METRIC, Floor, check_exceedable, check_floor
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudySummary

By = Literal["methods", "study"]
LEVEL = 0.95
"""Share of the draws in which something must be so."""


@dataclass(frozen=True)
class ComparedStudy:
    """A study that is compared with others.

    Attributes:
        label: What it is called beside the others; no two have the same.
        summary: What it is.
        description: The same as `study.json` holds it.
        dense: The dense network's metrics.
        records: Every trial that was started.
        ending: As `dirprune.records.ending.read_ending` returns it.
        samplers: What chose its trials, in the order of its runs; empty where an earlier version did not say.
    """

    label: str
    summary: StudySummary
    description: Mapping[str, Any]
    dense: Mapping[str, float]
    records: Sequence[TrialRecord]
    ending: str | None = ""
    samplers: Sequence[str] = ()

    @property
    def methods(self) -> str:
        """The importance methods that its trials may take, as in "magnitude+taylor"."""
        return "+".join(sorted(self.description["space"]["methods"]))

    @property
    def n_images(self) -> int | None:
        """Training images that its trials saw; None where no trial reported any."""
        seen = [record.last_images for record in self.records if record.curve]
        return sum(seen) if seen else None

    def count(self, *states: str) -> int:
        """Count its trials in some states."""
        return sum(record.state in states for record in self.records)

    def find_candidates(self, floor: Floor | None) -> list[TrialRecord]:
        """Return the trials that may be on a front that begins at a least accuracy."""
        candidates = [record for record in self.records if record.is_candidate]
        return [record for record in candidates if floor is None or floor.allows(record.metrics)]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of some numbers; of a single one there is no deviation."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        """Summarise finite numbers; None if there are none."""
        column = list(map(float, values))
        if not column:
            return None
        return cls(mean(column), stdev(column) if len(column) > 1 else None)


@dataclass(frozen=True)
class Budget:
    """A limit on the cost of a network.

    Attributes:
        share: Of the dense network's cost.
        cost: The same in the cost's own unit.
    """

    share: float
    cost: float


@dataclass(frozen=True)
class StudyResult:
    """What a study came to.

    Attributes:
        study: The study.
        hypervolume: To the reference point of all studies.
        draws: What it may be by the errors of the objectives; see `draw_hypervolumes`.
        chosen: For each budget the network that validation chose within it; None where there is none.
    """

    study: ComparedStudy
    hypervolume: float
    draws: NDArray[np.float64] = field(compare=False)
    chosen: tuple[TrialRecord | None, ...]

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which 95% of the draws are; without errors of the objectives both are the hypervolume."""
        return find_bounds(self.draws)


@dataclass(frozen=True)
class Group:
    """Studies that repeat each other.

    Attributes:
        name: What they have in common.
        results: One for each study, at least one.
    """

    name: str
    results: tuple[StudyResult, ...]

    @property
    def hypervolume(self) -> Spread:
        """Mean and deviation over the studies."""
        spread = Spread.of(result.hypervolume for result in self.results)
        assert spread is not None
        return spread

    @property
    def n_images(self) -> int | None:
        """Training images that its studies saw; None where one of them says nothing."""
        seen = [result.study.n_images for result in self.results]
        known = [n for n in seen if n is not None]
        return sum(known) if len(known) == len(seen) else None

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which 95% of the draws of the mean are."""
        return find_bounds(_average([result.draws for result in self.results]))

    @property
    def draws_by_seed(self) -> dict[int, NDArray[np.float64]]:
        """The draws of the mean over the studies of each seed."""
        by_seed: dict[int, list[NDArray[np.float64]]] = {}
        for result in self.results:
            by_seed.setdefault(result.study.summary.seed, []).append(result.draws)
        return {seed: _average(draws) for seed, draws in by_seed.items()}

    def count(self, *states: str) -> int:
        """Count trials of its studies in some states."""
        return sum(result.study.count(*states) for result in self.results)

    def find_chosen(self, place: int) -> list[TrialRecord]:
        """Return the networks within the budget at a place; studies that have none are left out."""
        return [record for result in self.results if (record := result.chosen[place]) is not None]

    def summarise(self, place: int, metric: str) -> Spread | None:
        """Summarise a metric of the networks within the budget at a place; None unless finite in all."""
        chosen = self.find_chosen(place)
        known = [value for record in chosen for value in find_known(record, [metric]).values()]
        return Spread.of(known) if len(known) == len(chosen) else None


@dataclass(frozen=True)
class Pairing:
    """Two groups seed by seed.

    Attributes:
        first, second: The groups' names.
        seeds: Those that both have, each of which makes a pair.
        n_above: Pairs in which the first one's hypervolume is the higher one, and in at most 5% of the draws
            the lower one.
        n_equal: Pairs in which neither is so: the same ones where values have no errors.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    n_above: int
    n_equal: int


@dataclass(frozen=True)
class Comparison:
    """Groups of studies, judged alike.

    Attributes:
        objectives: What all of them trade.
        floor: The least accuracy of a network that counts; None: there is none.
        reference_point: Where all hypervolumes begin, value per objective metric.
        cost: The metric that budgets limit.
        budgets: As asked for.
        groups: In the order in which their first studies were given.
        pairings: Of every two groups that have a seed in common.
    """

    objectives: tuple[Objective, ...]
    floor: Floor | None
    reference_point: Mapping[str, float]
    cost: str
    budgets: tuple[Budget, ...]
    groups: tuple[Group, ...]
    pairings: tuple[Pairing, ...]

    @property
    def metrics(self) -> list[str]:
        """What is told of a chosen network: what validation judges, the same on test, and its cost."""
        judged = find_judged(self.objectives)
        if judged is None:
            return [self.cost]
        return [judged.metric, judged.metric.replace("val_", "test_", 1), self.cost]

    @property
    def has_margins(self) -> bool:
        """Whether values of an objective have an error, so that hypervolumes have bounds."""
        return any(objective.margin for objective in self.objectives)


def compare(
    studies: Sequence[ComparedStudy],
    by: By = "methods",
    least: str | None = None,
    shares: Sequence[float] = (0.75, 0.5, 0.25),
) -> Comparison:
    """Compare studies that may be compared.

    Args:
        studies: At least two, of the same network, data and objectives.
        by: What makes a group: the methods that trials may take, or each study one of its own.
        least: The least accuracy, as `check_floor` takes it; None: the highest among the studies'.
        shares: Budgets as shares of the dense network's cost.
    Raises:
        ConfigurationError: If the least accuracy cannot be applied to all studies.
    """
    objectives, dense_costs = studies[0].summary.objectives, studies[0].summary.dense_costs
    floor = resolve_floor(studies, least)
    reference_point = find_reference(studies, floor)
    cost = find_cost(objectives)
    budgets = tuple(Budget(share, share * dense_costs[cost]) for share in shares)
    gathered: dict[str, list[StudyResult]] = {}
    for study in studies:
        candidates = study.find_candidates(floor)
        volume_of = (candidates, objectives, reference_point, dense_costs)
        result = StudyResult(
            study,
            compute_hypervolume(*volume_of),
            draw_hypervolumes(*volume_of),
            tuple(choose_within(candidates, objectives, cost, budget.cost) for budget in budgets),
        )
        gathered.setdefault(study.methods if by == "methods" else study.label, []).append(result)
    groups = tuple(Group(name, tuple(results)) for name, results in gathered.items())
    pairings = tuple(pairing for pair in combinations(groups, 2) if (pairing := pair_by_seed(*pair)).seeds)
    return Comparison(objectives, floor, reference_point, cost, budgets, groups, pairings)


def resolve_floor(studies: Sequence[ComparedStudy], least: str | None) -> Floor | None:
    """Return the one least accuracy for all studies; None if there is none.

    Raises:
        ConfigurationError: If it is below what a study asked for, or the studies do not trade accuracy.
    """
    own = [study.summary.floor for study in studies]
    highest = max((floor for floor in own if floor is not None), key=lambda f: f.accuracy, default=None)
    if least is None:
        return highest
    check_floor(least)
    objectives = studies[0].summary.objectives
    if Objective(METRIC, "maximize") not in objectives:
        raise ConfigurationError(
            f"expected studies that trade {METRIC}:maximize, of which --floor is, got "
            f"{', '.join(map(str, objectives))}; leave --floor out"
        )
    resolved = [Floor.resolve(least, objectives, study.dense) for study in studies]
    floor = max((floor for floor in resolved if floor is not None), key=lambda f: f.accuracy)
    check_exceedable(floor.accuracy, least)
    if highest is not None and floor.accuracy < highest.accuracy:
        label = next(study.label for study in studies if study.summary.floor == highest)
        raise ConfigurationError(
            f"expected a least accuracy of at least {highest.accuracy!r}, below which {label} looked for "
            f"nothing, got {floor.accuracy!r}; leave --floor out, or raise it"
        )
    return floor


def find_reference(studies: Sequence[ComparedStudy], floor: Floor | None) -> dict[str, float]:
    """Return the strictest of the studies' reference values per objective, accuracy at least the floor."""
    reference = {}
    for objective in studies[0].summary.objectives:
        values = [study.summary.reference_point[objective.metric] for study in studies]
        reference[objective.metric] = max(values) if objective.is_maximized else min(values)
    return reference if floor is None else floor.raised(reference)


def choose_within(
    records: Sequence[TrialRecord], objectives: Sequence[Objective], cost: str, limit: float
) -> TrialRecord | None:
    """Return the network that validation chooses of those within a limit of cost; None if there is none.

    Args:
        records: Of which those of `find_comparable` count; `choose_best` chooses.
        objectives: What the study trades.
        cost: The metric that is limited.
        limit: Of the cost, inclusive.
    """
    comparable = [record for record, _ in find_comparable(records, objectives)]
    affordable = [record for record in comparable if record.metrics.get(cost, math.inf) <= limit]
    return choose_best(affordable, objectives, cost) if affordable else None


def find_known(record: TrialRecord, metrics: Sequence[str]) -> dict[str, float]:
    """Return those of some metrics that a network has; one that is not finite counts as missing."""
    return {m: record.metrics[m] for m in metrics if math.isfinite(record.metrics.get(m, math.nan))}


def pair_by_seed(first: Group, second: Group) -> Pairing:
    """Compare the hypervolumes of two groups seed by seed, as the mean over a group's studies of a seed.

    Each pair counts for what the errors of the objectives turn round in at most 5% of the draws.
    """
    ones, others = first.draws_by_seed, second.draws_by_seed
    seeds = tuple(seed for seed in ones if seed in others)
    return Pairing(
        first.name,
        second.name,
        seeds,
        sum(_is_above(ones[seed], others[seed]) for seed in seeds),
        sum(
            not _is_above(ones[seed], others[seed]) and not _is_above(others[seed], ones[seed])
            for seed in seeds
        ),
    )


def _is_above(draws: NDArray[np.float64], others: NDArray[np.float64]) -> bool:
    n_above, n_below = np.sum(draws > others), np.sum(draws < others)
    return bool(n_above > n_below and n_below <= (1 - LEVEL) * len(draws))


def _average(draws: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Return the mean over studies of each draw, the same in whatever order they come."""
    return np.sort(draws, axis=0).mean(axis=0)


def find_bounds(draws: NDArray[np.float64]) -> tuple[float, float]:
    """Return between which `LEVEL` of some draws are."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
