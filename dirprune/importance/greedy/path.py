"""Greedy elimination over all groups jointly, per unit of cost saved: an architecture for every cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dirprune.architecture import Architecture
from dirprune.cost import COST_METRICS, LATENCY, CostModel
from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import Kept, Scorer, Scores, ScoringContext
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.greedy.elimination import Elimination
from dirprune.importance.greedy.images import check_common, with_examples
from dirprune.importance.registry import register
from dirprune.latency import describe_machine, fit_latency

COSTS = (*COST_METRICS, "latency")
N_FOR_LATENCY = 64
Cost = Callable[[Mapping[str, int]], float]
"""From the kept channels of every group to what such a network costs."""


@dataclass(frozen=True)
class PathOptions:
    """Options of `GreedyPath`.

    Attributes:
        cost: What is saved by removing a channel: "macs", "parameters", or "latency" as `fit_latency` has it
            for batches of 64 calibration images on the device: other measurements give other paths.
        value: "loss" (the better conditioned one) or "accuracy".
        n_examples: Calibration images that judge; >= 1. All of them where there are fewer.
        step: Share of a group's channels left that may go at once, in (0, 1]; at least one always may.
        slack: Share by which a channel may cost more than the cheapest one of another group was last known
            to cost, before that group is looked at again; >= 0.
        lazy: Whether channels that cannot be the cheapest are left out.
        recalibrate: Whether channels are judged with the batch-norm statistics that they leave, as when these
            are estimated again after pruning.
    """

    cost: str = "macs"
    value: str = "loss"
    n_examples: int = 500
    step: float = 0.1
    slack: float = 0.2
    lazy: bool = True
    recalibrate: bool = True

    def __post_init__(self) -> None:
        check_common(self.value, self.n_examples, self.step)
        if self.cost not in COSTS:
            hint = suggest(self.cost, COSTS)
            raise ImportanceError(f"cost must be 'macs', 'parameters' or 'latency', got {self.cost!r}{hint}")
        if not 0 <= self.slack < float("inf"):
            raise ImportanceError(f"slack must be a number of at least 0, got {self.slack:g}")


@dataclass(frozen=True)
class Step:
    """One channel removed from the network.

    Attributes:
        group: Name of the group that it was removed from.
        channel: Which of its channels.
        value: The network's value afterwards; higher is better.
        cost: What the network costs afterwards.
        architecture: Kept channels of every group afterwards.
    """

    group: str
    channel: int
    value: float
    cost: float
    architecture: Architecture


@dataclass(frozen=True)
class Path:
    """All removals from the whole network down to one channel in each group: an architecture for every cost.

    Attributes:
        full: The whole network's architecture.
        full_cost: What it costs.
        steps: The removals in their order.
    """

    full: Architecture
    full_cost: float
    steps: tuple[Step, ...]

    def count_steps_within(self, budget: float) -> int:
        """Return after how many steps the cost is within the budget for the first time.

        Raises:
            ImportanceError: If even the last step costs more.
        """
        costs = [self.full_cost, *(step.cost for step in self.steps)]
        for n_steps, cost in enumerate(costs):
            if cost <= budget:
                return n_steps
        raise ImportanceError(
            f"budget must be at least {min(costs):g}, what one channel in each group costs, got {budget:g}"
        )

    def architecture_within(self, budget: float) -> Architecture:
        """Return the first architecture of the path that costs no more than the budget.

        Raises:
            ImportanceError: If even the last one costs more.
        """
        n_steps = self.count_steps_within(budget)
        return self.steps[n_steps - 1].architecture if n_steps > 0 else self.full

    def kept_within(self, budget: float) -> Kept:
        """Return the channels that are left where the path first costs no more than the budget, sorted.

        Raises:
            ImportanceError: If even the last architecture costs more.
        """
        removed = {(step.group, step.channel) for step in self.steps[: self.count_steps_within(budget)]}
        return {
            name: [channel for channel in range(n_channels) if (name, channel) not in removed]
            for name, n_channels in self.full.items()
        }

    def scores(self) -> Scores:
        """Return the place in which each channel was removed; survivors have the place after the last."""
        scores = {
            name: torch.full((n_channels,), float(len(self.steps)), dtype=torch.float64)
            for name, n_channels in self.full.items()
        }
        for place, step in enumerate(self.steps):
            scores[step.group][step.channel] = place
        return scores


@register(
    "greedy-path",
    "the place in a joint elimination over all groups, each time of what loses least per unit of cost saved",
    cost="about 10 n coalitions a group, given what the other groups have lost",
    needs_data=True,
    needs_gradients=False,
    stochastic=False,
)
class GreedyPath(Scorer):
    """Scores each channel by how long it survives; see `compute_path`.

    The order within each group is nested, so that it serves every architecture.
    """

    Options = PathOptions

    def depends_on(self, context: ScoringContext) -> Any:
        """Return the machine and the device where latency is what is saved."""
        if self.options.cost != "latency":
            return None
        return describe_machine(context.device)

    def score(self, context: ScoringContext) -> Scores:
        """Return places >= 0, each of shape (n_channels,); no two channels of a group have the same."""
        return compute_path(context, self.options).scores() if context.grouping.groups else {}


def compute_path(
    context: ScoringContext, options: PathOptions | None = None, cost: Cost | None = None
) -> Path:
    """Remove channels from the whole network, always where the loss rises least per unit of cost saved.

    Each channel is judged by running the network without it and without all that was removed before, in
    whatever group. What is known of a group from earlier is taken for a lower bound until its turn comes.

    Args:
        context: The network must be in evaluation mode; it is left as it is.
        options: The defaults when None.
        cost: Costs of architectures, such as measured latencies, instead of those that the options name;
            lower with every channel less, or as low.
    """
    return _Walk(context, options or PathOptions(), cost).walk()


class _Walk:
    """The state of a path under way."""

    def __init__(self, context: ScoringContext, options: PathOptions, cost: Cost | None) -> None:
        self.context = with_examples(context, options.n_examples)
        self.options = options
        self.cost = cost or _find_cost(self.context, options.cost)
        self.full = Architecture.full(context.grouping)
        self.states = {
            name: Elimination(np.ones(n, dtype=bool), options.lazy) for name, n in self.full.items()
        }
        self.architecture = dict(self.full)
        self.cost_now = self.full_cost = self.cost(self.architecture)
        self.steps: list[Step] = []
        self.n_total = sum(n - 1 for n in self.full.values())
        self.is_settled: set[str] = set()  # groups that were looked at since the last removal
        self.opened: CoalitionValues | None = None

    def walk(self) -> Path:
        """Remove channels until one is left in each group."""
        while len(self.steps) < self.n_total:
            saved = self._compute_savings()
            rates = {name: _rate(self.states[name].lowest, saved[name]) for name in saved}
            first, *others = sorted(rates, key=rates.__getitem__)
            self._remove(first, _rate(rates[others[0]], 1 / saved[first]) if others else float("inf"))
        return Path(self.full, self.full_cost, tuple(self.steps))

    def _remove(self, name: str, limit: float) -> None:
        """Remove channels of one group that cost no more than the limit, and none if all cost more."""
        state = self.states[name]
        if name in self.is_settled:
            limit = float("inf")  # nothing has changed since it was looked at: it is the cheapest
        elif math.isfinite(limit):
            limit += self.options.slack * abs(limit)
        n_at_once = max(1, int(self.options.step * state.n_left))
        removals = state.remove(self._open(name), state.n_left - 1, n_at_once, limit)
        self.is_settled = set() if removals else self.is_settled | {name}
        for removal in removals:
            self.architecture[name] -= 1
            self.cost_now = self.cost(self.architecture)
            self.steps.append(
                Step(name, removal.channel, removal.value, self.cost_now, Architecture(self.architecture))
            )
        if self.context.progress is not None:
            self.context.progress("greedy-path", len(self.steps), self.n_total)

    def _compute_savings(self) -> dict[str, float]:
        """Return what one channel less saves, for each group that has channels to spare."""
        saved = {}
        for name, n_left in self.architecture.items():
            if n_left > 1:
                smaller = self.cost({**self.architecture, name: n_left - 1})
                saved[name] = max(self.cost_now - smaller, 1e-12 * self.full_cost, 1e-300)
        return saved

    def _open(self, name: str) -> CoalitionValues:
        """Return the values of a group's coalitions given what the others have lost."""
        if self.opened is not None and self.opened.group == name:
            return self.opened
        kept = {
            other: state.is_left.nonzero()[0].tolist()
            for other, state in self.states.items()
            if other != name and not state.is_left.all()
        }
        options = self.options
        self.opened = open_values(
            self.context, name, kept, value=options.value, is_recalibrated=options.recalibrate
        )
        return self.opened


def _rate(increase: float, saved: float) -> float:
    """Return what a unit of cost saved costs; where the loss falls, the lower the more is saved."""
    return increase / saved if increase >= 0 else increase * saved


def _find_cost(context: ScoringContext, metric: str) -> Cost:
    inputs, _ = context.load(slice(0, N_FOR_LATENCY))
    model = CostModel(context.network, context.grouping, inputs[:2])
    if metric == "latency":
        fitted = fit_latency(context.network, context.grouping, inputs, seed=context.seed)
        model, metric = model.with_latency(fitted.constant_ms, fitted.rates_ms), LATENCY
    return lambda architecture: float(model.costs(architecture).as_dict()[metric])
