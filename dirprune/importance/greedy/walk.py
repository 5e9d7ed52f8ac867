"""The state of a path under way: what is left of each group, what that costs, and the steps so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from dirprune.architecture import Architecture
from dirprune.importance.base import ScoringContext
from dirprune.importance.greedy.steps import Path, Step

Cost = Callable[[Mapping[str, int]], float]
"""From the kept channels of every group to what such a network costs."""


class Walk(ABC):
    """Removes channels until one is left in each group.

    Args:
        context: The network, its groups and the images that judge.
        cost: What is saved by removing channels.
    """

    def __init__(self, context: ScoringContext, cost: Cost) -> None:
        self.context = context
        self.cost = cost
        self.full = Architecture.full(context.grouping)
        self.architecture = dict(self.full)
        self.cost_now = self.full_cost = self.cost(self.architecture)
        self.steps: list[Step] = []
        self.n_total = sum(n - 1 for n in self.full.values())

    def walk(self) -> Path:
        """Return the whole path."""
        while len(self.steps) < self.n_total:
            self.remove_some()
            if self.context.progress is not None:
                self.context.progress("greedy-path", len(self.steps), self.n_total)
        return Path(self.full, self.full_cost, tuple(self.steps))

    @abstractmethod
    def remove_some(self) -> None:
        """Record removals, or come nearer to the next one."""

    def record(self, group: str, channel: int, value: float) -> None:
        """Add the removal of one of the dense network's channels, and the value afterwards."""
        self.architecture[group] -= 1
        self.cost_now = self.cost(self.architecture)
        self.steps.append(Step(group, channel, value, self.cost_now, Architecture(self.architecture)))

    def compute_savings(self) -> dict[str, float]:
        """Return what one channel less saves, for each group that has channels to spare."""
        saved = {}
        for name, n_left in self.architecture.items():
            if n_left > 1:
                smaller = self.cost({**self.architecture, name: n_left - 1})
                saved[name] = max(self.cost_now - smaller, 1e-12 * self.full_cost, 1e-300)
        return saved


def compute_rate(increase: float, saved: float) -> float:
    """Return what a unit of cost saved costs; where the loss falls, the lower the more is saved."""
    return increase / saved if increase >= 0 else increase * saved
