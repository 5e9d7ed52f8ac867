"""Architectures worth a trial before anything has been tried: by curves of sensitivity, or along a path."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from dirprune.allocation import Allocation, Curve, allocate, choose_spread
from dirprune.architecture import Architecture
from dirprune.cost import COST_METRICS, CostModel
from dirprune.files import read_json, write_json
from dirprune.groups import Grouping
from dirprune.importance import ScoreCache, ScoringContext, create
from dirprune.importance.fresh_norm import with_fresh_norms
from dirprune.importance.greedy import PathOptions, compute_path
from dirprune.importance.greedy.path import choose_examples
from dirprune.projection import Projection
from dirprune.records.folder import StudyFolder
from dirprune.sensitivity import Cuts, measure_curves, measure_loss
from dirprune.study.joint_cuts import JointCuts
from dirprune.study.space import PATH
from dirprune.study.spec import StudySpec

SCHEMA = 1
N_MEASURED = 5
MAX_WIDTHS = 32
SHARES = (0.5, 0.0)
"""Of its offsets from equal keep ratios, with which an architecture is tried as well."""


def obtain_warm_starts(folder: StudyFolder, find: Callable[[], Iterable[Allocation]]) -> list[Architecture]:
    """Return the warm starts that the study was started with; find them if it has not started yet.

    Args:
        folder: The study's folder, which exists.
        find: Finds them.
    """
    if not folder.study_json.exists():
        listed = [{"architecture": one.architecture.to_json(), "loss": one.loss} for one in find()]
        write_json(folder.warm_starts_json, {"warm_starts": listed}, SCHEMA)
    stored = read_json(folder.warm_starts_json, SCHEMA)["warm_starts"]
    return [Architecture.from_json(one["architecture"]) for one in stored]


def count_wanted(spec: StudySpec, grouping: Grouping) -> int:
    """Return how many warm starts a study wants: as far as it has trials for them."""
    n_others = len({architecture for _, architecture in spec.space.first_trials(grouping)})
    return max(0, min(spec.space.warm_starts, spec.trials // 2, spec.trials - n_others))


def find_warm_starts(
    spec: StudySpec,
    context: ScoringContext,
    costs: CostModel,
    cache: ScoreCache | None = None,
    least_promise: float = 0.0,
) -> list[Allocation]:
    """Return the study's warm starts, the most promising first.

    By curves, each group is cut alone to a few widths; the architectures that lose least for their cost if
    what the groups lose adds up are candidates, and those that are chosen are cut as a whole (`JointCuts`).
    Along a path they are what greedy elimination over all groups comes by. Those are taken that together
    promise the largest hypervolume; what every study starts with anyway, a uniform architecture say, is none
    of them.

    Args:
        spec: The study: how many, as far as it has trials for them, its first method, its limits, its space.
        context: The dense network and the calibration images.
        costs: Costs of any architecture.
        cache: Where scores are looked up and kept.
        least_promise: Share of the dense network's accuracy below which a promise counts for nothing.
    """
    space = spec.space
    others = {architecture for _, architecture in space.first_trials(context.grouping)}
    n_wanted = count_wanted(spec, context.grouping)
    if n_wanted == 0:
        return []
    projection = Projection(costs, space.cost, space.lowest_widths(costs), space.multiples(costs))
    allowed = {
        name: widths.tolist() for name, widths in zip(projection.names, projection.widths, strict=True)
    }
    if space.warm_starts_from == PATH:
        found = _follow_path(spec.traded_cost, context, costs, allowed, cache)
        return _choose_within(spec, costs, found, n_wanted, least_promise, others)
    method = create(next(iter(space.methods)), {})
    widths = {name: _spread(values, N_MEASURED) for name, values in allowed.items()}
    cuts = Cuts(context, method, reconstruct=spec.reconstruct, cache=cache)
    found = _find_candidates(spec.traded_cost, costs, measure_curves(cuts, widths), allowed)
    candidates = _list_within(spec, costs, found, others)

    def find_alternatives(architecture: Architecture) -> list[Architecture]:
        """Return what costs as much by the space's measure and lies nearer to equal keep ratios."""
        target = float(costs.costs(architecture).as_dict()[space.cost])
        offsets = projection.offsets_of(architecture)
        nearer = [
            projection.by_offsets(target, {name: share * offset for name, offset in offsets.items()})
            for share in SHARES
        ]
        return [
            one
            for one in dict.fromkeys(nearer)
            if one != architecture and _list_within(spec, costs, [Allocation(one, 0.0, 0.0)], others)
        ]

    def cost_of(architecture: Mapping[str, int]) -> float:
        return float(costs.costs(architecture).as_dict()[spec.traded_cost])

    together = JointCuts(cuts.measure, find_alternatives, cost_of, cuts.tell)
    return together.choose(candidates, n_wanted, cost_of(costs.n_channels), least_promise)


def choose(
    spec: StudySpec,
    costs: CostModel,
    curves: Mapping[str, Curve],
    allowed: Mapping[str, Sequence[int]],
    n: int,
    least_promise: float = 0.0,
    others: Collection[Architecture] = (),
) -> list[Allocation]:
    """Return the warm starts that curves alone lead to.

    Args:
        spec: The study.
        costs: Costs of any architecture.
        curves: For every group what it loses, at some widths; narrower ones are not chosen.
        allowed: For every group its widths to choose from, the whole one among them.
        n: How many at most.
        least_promise: As in `find_warm_starts`.
        others: Architectures that are none.
    """
    found = _find_candidates(spec.traded_cost, costs, curves, allowed)
    return _choose_within(spec, costs, found, n, least_promise, others)


def _find_candidates(
    metric: str, costs: CostModel, curves: Mapping[str, Curve], allowed: Mapping[str, Sequence[int]]
) -> list[Allocation]:
    """Return the architectures that lose least for their cost when what groups lose adds up."""
    finer = {}
    for name, curve in curves.items():
        known = [width for width in allowed[name] if width >= curve.widths[0]]
        finer[name] = curve.at(_spread(known, MAX_WIDTHS))
    return allocate(costs, metric, finer)


def _follow_path(
    metric: str,
    context: ScoringContext,
    costs: CostModel,
    allowed: Mapping[str, Sequence[int]],
    cache: ScoreCache | None,
) -> list[Allocation]:
    """Return what greedy elimination comes by, each group moved up to the next allowed width."""
    if cache is not None:
        context = dataclasses.replace(context, workspace=cache.folder)

    def cost_of(architecture: Mapping[str, int]) -> float:
        return float(costs.costs(architecture).as_dict()[metric])

    is_counted = metric in COST_METRICS  # else a latency, as the study has modelled it
    options = PathOptions(cost=metric) if is_counted else PathOptions()
    path = compute_path(context, options, cost=None if is_counted else cost_of)
    judging, _ = choose_examples(context, options)
    whole = -measure_loss(judging, with_fresh_norms(judging, are_all=options.recalibrate).network)
    found: dict[Architecture, Allocation] = {}
    for step in path.steps:
        architecture = Architecture(
            {
                name: next(width for width in allowed[name] if width >= n)
                for name, n in step.architecture.items()
            }
        )
        if architecture not in found and math.isfinite(step.value):
            found[architecture] = Allocation(architecture, whole - step.value, cost_of(architecture))
    return list(found.values())


def _choose_within(
    spec: StudySpec,
    costs: CostModel,
    found: Iterable[Allocation],
    n: int,
    least_promise: float,
    others: Collection[Architecture],
) -> list[Allocation]:
    """Return those within the study's limits that together promise most."""
    whole = costs.costs(costs.n_channels).as_dict()[spec.traded_cost]
    return choose_spread(_list_within(spec, costs, found, others), n, whole, least_promise)


def _list_within(
    spec: StudySpec, costs: CostModel, found: Iterable[Allocation], others: Collection[Architecture]
) -> list[Allocation]:
    """Return those within the study's limits that are not among others."""
    return [
        allocation
        for allocation in found
        if allocation.architecture not in others
        and all(
            costs.costs(allocation.architecture).as_dict()[m] <= bound for m, bound in spec.limits.items()
        )
    ]


def _spread(widths: Sequence[int], n: int) -> list[int]:
    """Return at most n of the widths, evenly, the first and the last among them."""
    places = np.linspace(0, len(widths) - 1, min(n, len(widths))).round().astype(int)
    return [int(widths[place]) for place in places]
