"""From a cost target to an architecture: the largest below it of a family that offsets or scores shape."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dirprune.architecture import Architecture
from dirprune.cost import COST_METRICS, CostModel
from dirprune.errors import ConfigurationError, suggest

MAX_OFFSET = 2.0
"""Largest absolute offset of `offsets_of`: a keep ratio of 0.5 becomes 0.91, or 0.006 with its negative."""

Floats = NDArray[np.float64]


class Projection:
    """Choose architectures by their cost.

    Every group grows from its least to its whole width in steps. A family puts the steps of all groups into
    one order, so that its members are nested. Where the next step of the family costs more than is left, the
    cheapest steps of any group fill up what they can before it. The candidates of a family do not depend on
    the target: the cost of the result never falls when the target grows, and is less than one step of the
    cheapest group below it.

    Args:
        costs: Costs of every architecture.
        metric: "macs" or "parameters".
        least: Smallest width of each group, >= 1; groups that are not named go down to one channel.
        multiple: Widths are multiples of this, except a group's least and whole width; >= 1. Or one for each
            group; those that are not named have every width.
    Raises:
        ConfigurationError: If the metric is unknown, or a number is out of its range.
    """

    def __init__(
        self,
        costs: CostModel,
        metric: str = "macs",
        least: Mapping[str, int] | None = None,
        multiple: int | Mapping[str, int] = 1,
    ) -> None:
        if metric not in COST_METRICS:
            raise ConfigurationError(f"unknown cost {metric!r}{suggest(metric, COST_METRICS)}")
        multiples = multiple if isinstance(multiple, Mapping) else dict.fromkeys(costs.n_channels, multiple)
        if (smallest := min(multiples.values(), default=1)) < 1:
            raise ConfigurationError(
                f"channel multiple must be at least 1, got {smallest}; 8 suits most GPUs"
            )
        self.costs, self.metric = costs, metric
        self.names = list(costs.n_channels)
        self.widths: list[NDArray[np.int64]] = []
        for name, n_channels in costs.n_channels.items():
            lowest = (least or {}).get(name, 1)
            if not 1 <= lowest <= n_channels:
                raise ConfigurationError(
                    f"least width of {name} must be in 1..{n_channels}, got {lowest}; try 1"
                )
            step = multiples.get(name, 1)
            between = range(step * (lowest // step + 1), n_channels, step)
            self.widths.append(np.unique([lowest, *between, n_channels]))
        self._groups = np.repeat(np.arange(len(self.names)), [len(widths) - 1 for widths in self.widths])
        self.lowest_cost = self._cost(np.zeros(len(self.names), dtype=np.int64))
        self.highest_cost = self._cost(np.array([len(widths) - 1 for widths in self.widths]))

    def by_offsets(self, target: float, offsets: Mapping[str, float]) -> Architecture:
        """Return the architecture for a target, with groups kept more or less than others.

        Without offsets all groups have the same keep ratio, as nearly as widths allow. In general the keep
        ratio of a group is s^exp(-offset) for one s in (0, 1] for all groups.

        Args:
            target: Cost that must not be exceeded.
            offsets: For each group a number, higher = keep more; 0 for groups that are not named.
        Raises:
            ConfigurationError: If even the smallest architecture costs more.
        """
        times = [
            (widths[1:] / widths[-1]) ** math.exp(offsets.get(name, 0.0))
            for name, widths in zip(self.names, self.widths, strict=True)
        ]
        return self._project(target, times)

    def by_scores(
        self, target: float, scores: Mapping[str, Sequence[float]], offsets: Mapping[str, float]
    ) -> Architecture:
        """Return the architecture whose channels have the highest scores of all groups, for a target.

        The scores of a group are divided by their mean, so that groups with other units can be compared, and
        multiplied by exp(offset); where they are not all positive, they are moved to begin at zero first.
        One threshold for all groups then decides what is kept. A step takes in as many channels as it is
        wide, and comes when their mean reaches the threshold.

        Args:
            target: Cost that must not be exceeded.
            scores: For each group one number for each channel, shape (n_channels,), higher = keep.
            offsets: For each group a number, higher = keep more; 0 for groups that are not named.
        Raises:
            ConfigurationError: If even the smallest architecture costs more, or scores do not fit a group.
        """
        times = [
            -self._score_steps(place, scores) * math.exp(offsets.get(name, 0.0))
            for place, name in enumerate(self.names)
        ]
        return self._project(target, times)

    def offsets_of(self, architecture: Mapping[str, int]) -> dict[str, float]:
        """Return offsets with which `by_offsets` comes near an architecture at its own cost, mean about zero.

        Args:
            architecture: Kept channels of every group.
        """
        highest = [int(widths[-1]) for widths in self.widths]
        ratios = np.array([architecture[name] / n for name, n in zip(self.names, highest, strict=True)])
        # a whole group is taken to miss half a channel: its offset would be infinite
        logs = np.log(-np.log(np.minimum(ratios, 1 - 0.5 / np.array(highest))))
        offsets = np.clip(logs.mean() - logs, -MAX_OFFSET, MAX_OFFSET)
        return dict(zip(self.names, offsets.tolist(), strict=True))

    def score_offsets_of(
        self, architecture: Mapping[str, int], scores: Mapping[str, Sequence[float]]
    ) -> dict[str, float]:
        """Return offsets with which `by_scores` comes near an architecture at its own cost, mean about zero.

        Args:
            architecture: Kept channels of every group.
            scores: As in `by_scores`.
        """
        logs = []
        for place, (name, widths) in enumerate(zip(self.names, self.widths, strict=True)):
            steps = self._score_steps(place, scores)
            last = int(np.searchsorted(widths[1:], architecture[name], side="right"))  # steps taken
            around = steps[max(0, last - 1) : last + 1]
            logs.append(math.log(max(float(around.mean()), 1e-9)) if len(around) else 0.0)
        offsets = np.clip(np.mean(logs) - np.array(logs), -MAX_OFFSET, MAX_OFFSET)
        return dict(zip(self.names, offsets.tolist(), strict=True))

    def _score_steps(self, place: int, scores: Mapping[str, Sequence[float]]) -> Floats:
        """Return the mean score of the channels of each step of a group, falling, shape (n_steps,)."""
        name, widths = self.names[place], self.widths[place]
        values = np.asarray(scores.get(name, ()), dtype=np.float64)
        if values.shape != (widths[-1],) or not np.isfinite(values).all():
            raise ConfigurationError(
                f"expected {widths[-1]} finite scores of {name}, got an array of shape {values.shape}"
            )
        values = np.sort(values - min(0.0, values.min()))[::-1]
        mean = values.mean()
        values = values / mean if mean > 0 else np.ones_like(values)
        return np.array([values[low:high].mean() for low, high in itertools.pairwise(widths)])

    def _project(self, target: float, times: list[Floats]) -> Architecture:
        """Return the candidate of a family with the highest cost that is not above a target.

        Args:
            target: The cost.
            times: For each group when its steps come, shape (n_steps,), not decreasing.
        """
        if target < self.lowest_cost:
            raise ConfigurationError(
                f"{self.metric} can be from {self.lowest_cost:,} to {self.highest_cost:,} here, "
                f"got a target of {target:,.0f}"
            )
        order = self._groups[np.argsort(np.concatenate(times), kind="stable")]
        low, high = 0, len(order)  # the first `low` steps fit
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(self._count(order[:middle])) <= target:
                low = middle
            else:
                high = middle - 1
        places = self._count(order[:low])
        if low < len(order):
            self._fill_(places, target)
        return self._architecture(places)

    def _fill_(self, places: NDArray[np.int64], target: float) -> None:
        """Take the cheapest step of all groups, again and again, until it would cost too much."""
        current = self._cost(places)
        while True:
            steps = []
            for group in range(len(places)):
                if places[group] + 1 < len(self.widths[group]):
                    places[group] += 1
                    steps.append((self._cost(places) - current, group))
                    places[group] -= 1
            if not steps or current + min(steps)[0] > target:
                return
            cheapest, group = min(steps)
            places[group] += 1
            current += cheapest

    def _count(self, steps: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(steps, minlength=len(self.names))

    def _architecture(self, places: NDArray[np.int64]) -> Architecture:
        return Architecture(
            {
                name: int(widths[place])
                for name, widths, place in zip(self.names, self.widths, places, strict=True)
            }
        )

    def _cost(self, places: NDArray[np.int64]) -> int:
        return int(self.costs.costs(self._architecture(places)).as_dict()[self.metric])
