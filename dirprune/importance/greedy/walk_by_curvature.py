"""A path on which all channels are judged at once, to second order, again after every few removals."""

from __future__ import annotations

import itertools
import math

import numpy as np

from dirprune.importance.base import ScoringContext
from dirprune.importance.greedy.shrinking import Shrinking
from dirprune.importance.greedy.walk import Cost, Walk, compute_rate
from dirprune.importance.lines import CheckedLines

LEAST_STEP = 0.02


class CurvatureWalk(Walk):
    """Looks at the network's curvature, cuts what loses least per unit of cost saved, and looks again.

    Args:
        context: The network, its groups and the images that judge.
        cost: What is saved by removing channels.
        step: Share of the channels left that may go between two looks, in (0, 1]; so may 2% of all.
        is_recalibrated: See `Shrinking`.
        lines: Likewise.
    """

    def __init__(
        self,
        context: ScoringContext,
        cost: Cost,
        step: float,
        is_recalibrated: bool,
        lines: CheckedLines | None = None,
    ) -> None:
        super().__init__(context, cost)
        self.step = step
        self.shrinking = Shrinking(context, is_recalibrated, lines)
        for group, channel, value in itertools.chain.from_iterable(self.shrinking.notes):
            self.record(group, channel, value)

    def remove_some(self) -> None:
        """Look once, and cut as many channels as may go before the next look."""
        estimate = self.shrinking.look()
        names = list(self.full)
        channels = [channel for name in names for channel in self.shrinking.kept[name]]
        n_left = self.n_total - len(self.steps)
        n_now = min(n_left, math.ceil(max(self.step * n_left, LEAST_STEP * self.n_total)))
        removed = []
        for _ in range(n_now):
            saved = self.compute_savings()
            costs = estimate.costs()
            cheapest = {}
            for place, name in enumerate(names):
                if name in saved:
                    own = np.flatnonzero(estimate.groups == place)
                    cheapest[name] = int(own[costs[own].argmin()])
            rates = {name: compute_rate(costs[found], saved[name]) for name, found in cheapest.items()}
            first = min(rates, key=rates.__getitem__)
            estimate.remove(cheapest[first])
            value = -(self.shrinking.loss + estimate.increase())
            removed.append((first, channels[cheapest[first]], value))
            self.record(*removed[-1])
        self.shrinking.cut(estimate.is_removed, note=removed)
