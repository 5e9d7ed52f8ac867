"""What a path of removals over all groups is: an architecture, and its channels, for every cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from dirprune.architecture import Architecture
from dirprune.errors import ImportanceError
from dirprune.importance.base import Kept, Scores


@dataclass(frozen=True)
class Step:
    """One channel removed from the network.

    Attributes:
        group: Name of the group that it was removed from.
        channel: Which of its channels.
        value: The network's value afterwards, higher is better. By curvature it is minus the loss where the
            network was looked at, and on the line between two looks elsewhere. NaN where nobody knows.
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

    @classmethod
    def from_scores(cls, scores: Scores, cost: Callable[[Mapping[str, int]], float]) -> Path:
        """Return the path that gave scores; dead channels, which scores put last, are removed first.

        Args:
            scores: From `scores`, of every group.
            cost: What an architecture costs.
        """
        full = Architecture({name: len(values) for name, values in scores.items()})
        removals = sorted(
            (place, name, channel)
            for name, values in scores.items()
            for channel, place in enumerate(values.tolist())
        )
        steps, left = [], dict(full)
        for _, name, channel in removals:
            if left[name] > 1:
                left[name] -= 1
                steps.append(Step(name, channel, math.nan, cost(left), Architecture(left)))
        return cls(full, cost(full), tuple(steps))
