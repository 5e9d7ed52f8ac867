"""A path on which all channels are judged at once, to second order, again after every few removals."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np

from dirprune.errors import ImportanceError
from dirprune.importance.base import ScoringContext
from dirprune.importance.greedy.shrinking import Shrinking
from dirprune.importance.greedy.steps import Path
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
        self._looked_at: tuple[int, float] | None = None  # the steps before the last look, and the loss there
        for note in self.shrinking.notes:
            self._tell_values(note["loss"])
            for group, channel in note["removed"]:
                self.record(group, channel, math.nan)

    def walk(self) -> Path:
        """Return the whole path."""
        path = super().walk()
        if self._looked_at is not None and self._looked_at[0] < len(self.steps):
            self._look_at_the_end()
        return dataclasses.replace(path, steps=tuple(self.steps))

    def _look_at_the_end(self) -> None:
        """Find the loss there; where outputs are not finite by then, nobody knows it."""
        with contextlib.suppress(ImportanceError):
            estimate = self.shrinking.look()
            self._tell_values(self.shrinking.loss)
            self.shrinking.cut(estimate.is_removed, note={"loss": self.shrinking.loss, "removed": []})

    def remove_some(self) -> None:
        """Look once, and cut as many channels as may go before the next look."""
        estimate = self.shrinking.look()
        self._tell_values(self.shrinking.loss)
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
            removed.append((first, channels[cheapest[first]]))
            self.record(*removed[-1], math.nan)
        self.shrinking.cut(estimate.is_removed, note={"loss": self.shrinking.loss, "removed": removed})

    def _tell_values(self, loss: float) -> None:
        """Put the steps since the last look on the line from the loss there to the loss here."""
        if self._looked_at is not None:
            start, before = self._looked_at
            n_since = len(self.steps) - start
            for place in range(1, n_since + 1):
                value = -(before + (loss - before) * place / n_since)
                self.steps[start + place - 1] = dataclasses.replace(
                    self.steps[start + place - 1], value=value
                )
        self._looked_at = len(self.steps), loss
