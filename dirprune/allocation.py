"""Which widths lose least for what they cost, when what the groups lose adds up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import ArchitectureError
from dirprune.pareto import front_mask, hypervolume

MAX_LABELS = 256
N_PRICES = 64
MAX_SWEEPS = 50
RELAXATION = 0.003  # of a promise, a guess: fine-tuning repairs more

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Curve:
    """What one group loses when it is cut alone.

    Attributes:
        widths: Kept channels, increasing; the last is the whole group.
        losses: By how much the loss rises, one for each width, in nats.

    Raises:
        ArchitectureError: If they do not belong together.
    """

    widths: tuple[int, ...]
    losses: tuple[float, ...]

    def __post_init__(self) -> None:
        is_increasing = all(a < b for a, b in zip(self.widths, self.widths[1:], strict=False))
        if len(self.widths) != len(self.losses) or not self.widths or not is_increasing:
            raise ArchitectureError(
                f"expected increasing widths and as many losses, got {self.widths} and {len(self.losses)}"
            )
        if not all(map(math.isfinite, self.losses)):
            raise ArchitectureError(f"expected finite losses, got {self.losses}")

    def at(self, widths: Sequence[int]) -> Curve:
        """Return the curve at other widths, straight between its own and never rising with the width."""
        falling = np.maximum.accumulate(np.array(self.losses)[::-1])[::-1]
        return Curve(tuple(widths), tuple(np.interp(widths, self.widths, falling).tolist()))


@dataclass(frozen=True)
class Allocation:
    """An architecture with what it is expected to lose and what it costs.

    Attributes:
        architecture: Kept channels of every group.
        loss: By how much the loss rises, in nats: a sum of what its groups lose, or measured.
        cost: In the units of the metric.
    """

    architecture: Architecture
    loss: float
    cost: float


def allocate(
    costs: CostModel, metric: str, curves: Mapping[str, Curve], max_labels: int = MAX_LABELS
) -> list[Allocation]:
    """Return the architectures that lose least for their cost, sorted by cost.

    Where only groups that follow each other meet in a layer (chains, and groups that meet none), by dynamic
    programming over the groups with the width of the last one as the state: exact as long as no state has
    more than `max_labels` trades between cost and loss; of more, so many are kept evenly. Elsewhere by
    Lagrangian relaxation: for each of many prices of the cost, one group after the other takes the width
    that is best given the others, until none changes.

    Args:
        costs: Costs of every architecture.
        metric: "macs", "parameters" or "latency_ms".
        curves: For every group, its widths to choose from.
        max_labels: Trades that are kept for each width of a group; >= 2.
    Raises:
        ArchitectureError: If a group has no curve.
    """
    missing = [name for name in costs.n_channels if name not in curves]
    if missing:
        raise ArchitectureError(f"expected a curve for every group, got none for {missing[0]}")
    ordered = [curves[name] for name in costs.n_channels]
    terms = costs.terms(metric)
    one = len(ordered)
    is_chain = all(j == one or j - i <= 1 for _, i, j in terms)
    chosen = _follow_chain(ordered, terms, max_labels) if is_chain else _relax(ordered, terms)
    found = []
    for places in chosen:
        widths = [curve.widths[place] for curve, place in zip(ordered, places, strict=True)]
        loss = sum(curve.losses[place] for curve, place in zip(ordered, places, strict=True))
        architecture = Architecture(dict(zip(costs.n_channels, widths, strict=True)))
        found.append(Allocation(architecture, loss, float(costs.costs(architecture).as_dict()[metric])))
    points = np.array([(allocation.loss, allocation.cost) for allocation in found])
    front = [allocation for allocation, is_on in zip(found, front_mask(points), strict=True) if is_on]
    return sorted(front, key=lambda allocation: allocation.cost)


def choose_spread(
    allocations: Sequence[Allocation], n: int, whole: float, least: float = 0.0
) -> list[Allocation]:
    """Return n allocations that promise a large hypervolume: each adds most to those before it.

    An allocation promises exp(-loss): the factor by which the probability that the network gives to the
    right answers falls, in the geometric mean over images. One that costs as much as the whole network
    promises nothing, nor does one that another is better than in both. Where no other one promises more than
    the least that counts, this falls to `RELAXATION` below the best that is left, so that those nearest to it
    come next, spread over their costs.

    Args:
        allocations: To choose from.
        n: At most; >= 0.
        whole: Cost of the whole network, at which nothing is gained.
        least: Promise, in [0, 1], below which nothing is gained either, as long as any is above it.
    """
    promises = [math.exp(-allocation.loss) for allocation in allocations]
    shares = [allocation.cost / whole for allocation in allocations]
    points = np.column_stack([np.negative(promises), shares])
    is_front = front_mask(points)
    left = [place for place, one in enumerate(allocations) if one.cost < whole and is_front[place]]
    chosen: list[int] = []
    while left and len(chosen) < n:
        best = max(promises[place] for place in left)
        if best <= least:
            least = best - RELAXATION
        worthy = [place for place in left if promises[place] > least]
        volumes = [hypervolume(points[[*chosen, place]], [-least, 1.0]) for place in worthy]
        chosen.append(worthy[int(np.argmax(volumes))])
        left.remove(chosen[-1])
    return [allocations[place] for place in chosen]


def _follow_chain(
    curves: Sequence[Curve], terms: Sequence[tuple[float, int, int]], max_labels: int
) -> list[tuple[int, ...]]:
    """Return the places of the widths of all trades that may be on the front, by dynamic programming."""
    own, shared = _split_terms(curves, terms)
    n_groups = len(curves)
    labels = [np.array([[cost, loss]]) for cost, loss in zip(own[0], curves[0].losses, strict=True)]
    origins: list[
        list[Ints]
    ] = []  # for each later group and width: (width, label) of the one before, per label
    for group in range(1, n_groups):
        new_labels, new_origins = [], []
        for place in range(len(curves[group].widths)):
            step = np.array([own[group][place], curves[group].losses[place]])
            parts = [
                before + step + [shared[group][previous, place], 0.0]
                for previous, before in enumerate(labels)
            ]
            sources = [
                np.stack([np.full(len(before), previous), np.arange(len(before))], axis=1)
                for previous, before in enumerate(labels)
            ]
            together, source = np.concatenate(parts), np.concatenate(sources)
            kept = _thin_out(together, max_labels)
            new_labels.append(together[kept])
            new_origins.append(source[kept])
        labels, origins = new_labels, [*origins, new_origins]
    chosen = []
    for place, ends in enumerate(labels):
        for label in range(len(ends)):
            places, at = [place], (place, label)
            for sources in reversed(origins):
                at = tuple(sources[at[0]][at[1]])
                places.append(int(at[0]))
            chosen.append(tuple(reversed(places)))
    return chosen


def _split_terms(
    curves: Sequence[Curve], terms: Sequence[tuple[float, int, int]]
) -> tuple[list[Floats], list[Floats]]:
    """Return what each width of a group costs alone, and together with each width of the group before."""
    one = len(curves)
    widths = [np.array(curve.widths, dtype=np.float64) for curve in curves]
    own = [np.zeros(len(w)) for w in widths]
    shared = [np.zeros((len(widths[max(0, group - 1)]), len(w))) for group, w in enumerate(widths)]
    for factor, i, j in terms:
        if i == one:
            continue  # what every architecture costs
        if j == one:
            own[i] += factor * widths[i]
        elif i == j:
            own[i] += factor * widths[i] ** 2
        else:
            shared[j] += factor * np.outer(widths[i], widths[j])
    return own, shared


def _thin_out(labels: Floats, max_labels: int) -> Ints:
    """Return the places of labels that no other is better than, at most so many, evenly by their order."""
    order = np.lexsort((labels[:, 1], labels[:, 0]))
    losses = labels[order, 1]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(losses)[:-1]])
    front = order[losses < best_before]
    if len(front) <= max_labels:
        return front
    return front[np.linspace(0, len(front) - 1, max_labels).round().astype(np.int64)]


def _relax(curves: Sequence[Curve], terms: Sequence[tuple[float, int, int]]) -> list[tuple[int, ...]]:
    """Return the places of widths that are best for some price of the cost, and what lies one step beside."""
    widths = [np.array([*curve.widths], dtype=np.float64) for curve in curves]
    losses = [np.array(curve.losses) for curve in curves]
    by_group: list[list[tuple[float, int, int]]] = [[] for _ in curves]
    for factor, i, j in terms:
        for group in {i, j} - {len(curves)}:
            by_group[group].append((factor, i, j))

    def costs_of(group: int, places: Sequence[int]) -> Floats:
        """Return what the terms of a group cost for each of its widths, given the others."""
        total = np.zeros(len(widths[group]))
        for factor, i, j in by_group[group]:
            term = np.full(len(total), factor)
            for place in (i, j):
                if place == group:
                    term = term * widths[group]
                elif place < len(curves):
                    term = term * widths[place][places[place]]
            total += term
        return total

    whole = tuple(len(w) - 1 for w in widths)
    spans = [np.ptp(costs_of(group, whole)) for group in range(len(curves)) if len(widths[group]) > 1]
    steepest = max(np.ptp(loss) for loss in losses) / max(min(spans, default=0.0), 1e-300)
    shallowest = 1e-4 * max(np.ptp(loss) for loss in losses) / max(max(spans, default=0.0), 1e-300)
    found = {whole}
    places = list(whole)
    prices = np.geomspace(max(shallowest, 1e-300), max(10 * steepest, 1e-299), N_PRICES)
    for price in [*prices, *prices[::-1]]:
        for _ in range(MAX_SWEEPS):
            before = list(places)
            for group in range(len(curves)):
                places[group] = int(np.argmin(losses[group] + price * costs_of(group, places)))
            if places == before:
                break
        found.add(tuple(places))
    beside = {
        (*base[:group], base[group] + step, *base[group + 1 :])
        for base in found
        for group in range(len(curves))
        for step in (-1, 1)
        if 0 <= base[group] + step < len(widths[group])
    }
    return sorted(found | beside | {(0,) * len(curves)})
