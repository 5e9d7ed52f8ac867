"""How a sampler's numbers become an architecture: a width for each group, or a cost target and offsets.

Offsets shape keep ratios, or a threshold over the scores of the trial's importance method.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.projection import Projection

PER_GROUP, BUDGETED, RANKED = "per-group", "budgeted", "ranked"
SHAPES = (PER_GROUP, BUDGETED, RANKED)
TARGET = "target"
N_HALVINGS = 12


class Suggests(Protocol):
    """What is asked of a sampler's trial; Optuna's `Trial` is one."""

    def suggest_int(self, name: str, low: int, high: int) -> int: ...
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float: ...
    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


class Ranking(Protocol):
    """The scores of the methods that a study may choose."""

    def scores_of(self, method: str, options: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
        """Return for each group a score for each channel, higher = keep."""

    def typical(self) -> Mapping[str, Sequence[float]]:
        """Return the scores that stand for all where no method is known yet."""


class Shapes(ABC):
    """A parameterisation of the architectures of one network.

    Args:
        projection: Allowed widths and costs.
    """

    def __init__(self, projection: Projection) -> None:
        self.projection = projection

    @abstractmethod
    def suggest(
        self, trial: Suggests, method: str = "", options: Mapping[str, Any] | None = None
    ) -> Architecture:
        """Draw an architecture.

        Args:
            trial: Draws.
            method: The importance method of the trial.
            options: Its options.
        """

    @abstractmethod
    def parameters(self, architecture: Mapping[str, int]) -> dict[str, float]:
        """Return the parameters that come nearest to an architecture, so that a sampler learns from it."""


class PerGroup(Shapes):
    """A width for each group; in between the allowed ones the next lower one is taken.

    What is above a limit shrinks, all groups by about the same factor, until it is not: of deep networks
    nearly everything that is drawn would else be refused.

    Args:
        projection: Allowed widths and costs.
        limits: Highest cost by metric, each at least that of the least widths.
    """

    def __init__(self, projection: Projection, limits: Mapping[str, float] | None = None) -> None:
        super().__init__(projection)
        self.limits = dict(limits or {})

    def suggest(
        self, trial: Suggests, method: str = "", options: Mapping[str, Any] | None = None
    ) -> Architecture:
        """Draw an architecture."""
        drawn = [
            trial.suggest_int(_kept(name), int(widths[0]), int(widths[-1]))
            for name, widths in zip(self.projection.names, self.projection.widths, strict=True)
        ]
        whole = self._shrink(drawn, 1.0)
        if self._is_within(whole):
            return whole
        low, high = 0.0, 1.0  # at the lower one it is within the limits
        for _ in range(N_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._is_within(self._shrink(drawn, middle)) else (low, middle)
        return self._shrink(drawn, low)

    def _shrink(self, drawn: Sequence[int], factor: float) -> Architecture:
        """Return the allowed widths that are not above a share of the drawn ones, or the least."""
        kept = {}
        for name, widths, width in zip(self.projection.names, self.projection.widths, drawn, strict=True):
            allowed = widths[widths <= max(widths[0], factor * width)]
            kept[name] = int(allowed[-1])
        return Architecture(kept)

    def _is_within(self, architecture: Architecture) -> bool:
        if not self.limits:
            return True
        costs = self.projection.costs.costs(architecture).as_dict()
        return all(costs[metric] <= limit for metric, limit in self.limits.items())

    def parameters(self, architecture: Mapping[str, int]) -> dict[str, float]:
        """Return the widths, or the least ones that may be drawn where they are below those."""
        least = {
            name: int(widths[0])
            for name, widths in zip(self.projection.names, self.projection.widths, strict=True)
        }
        return {_kept(name): max(architecture[name], least[name]) for name in self.projection.names}


class Budgeted(Shapes):
    """A cost target, drawn evenly from a range, and an offset for each group.

    Args:
        projection: Allowed widths and costs.
        limit: Highest cost of an architecture, not below the lowest one; None: the whole network's.
        max_offset: Largest absolute offset; > 0.
    """

    def __init__(self, projection: Projection, limit: float | None, max_offset: float) -> None:
        super().__init__(projection)
        whole = projection.highest_cost
        self.low = projection.lowest_cost / whole
        self.high = min(1.0, (limit or whole) / whole)
        self.max_offset = max_offset

    def suggest(
        self, trial: Suggests, method: str = "", options: Mapping[str, Any] | None = None
    ) -> Architecture:
        """Draw an architecture."""
        share = trial.suggest_float(TARGET, self.low, self.high)
        offsets = {
            name: trial.suggest_float(_offset(name), -self.max_offset, self.max_offset)
            for name in self.projection.names
        }
        target = max(share * self.projection.highest_cost, self.projection.lowest_cost)
        return self._project(target, offsets, method, options or {})

    def _project(
        self, target: float, offsets: Mapping[str, float], method: str, options: Mapping[str, Any]
    ) -> Architecture:
        return self.projection.by_offsets(target, offsets)

    def _find_offsets(self, architecture: Mapping[str, int]) -> dict[str, float]:
        return self.projection.offsets_of(architecture)

    def parameters(self, architecture: Mapping[str, int]) -> dict[str, float]:
        """Return target and offsets within their ranges, and so perhaps of a neighbour."""
        cost = self.projection.costs.costs(architecture).as_dict()[self.projection.metric]
        share = min(max(cost / self.projection.highest_cost, self.low), self.high)
        offsets = self._find_offsets(architecture)
        clipped = {
            _offset(name): min(max(offset, -self.max_offset), self.max_offset)
            for name, offset in offsets.items()
        }
        return {TARGET: share, **clipped}


class Ranked(Budgeted):
    """A cost target, and an offset for each group to the scores of the trial's importance method.

    One threshold over the scores of all groups decides what is kept; see `Projection.by_scores`.

    Args:
        projection: Allowed widths and costs.
        limit: As in `Budgeted`.
        max_offset: As in `Budgeted`; an offset of 1 multiplies the scores of a group by 2.7.
        ranking: The methods' scores; None: nothing can be drawn yet.
    """

    def __init__(
        self, projection: Projection, limit: float | None, max_offset: float, ranking: Ranking | None
    ) -> None:
        super().__init__(projection, limit, max_offset)
        self.ranking = ranking

    def _project(
        self, target: float, offsets: Mapping[str, float], method: str, options: Mapping[str, Any]
    ) -> Architecture:
        assert self.ranking is not None
        return self.projection.by_scores(target, self.ranking.scores_of(method, options), offsets)

    def _find_offsets(self, architecture: Mapping[str, int]) -> dict[str, float]:
        assert self.ranking is not None
        return self.projection.score_offsets_of(architecture, self.ranking.typical())


def make_shapes(
    kind: str,
    costs: CostModel,
    metric: str,
    least: Mapping[str, int],
    multiple: int | Mapping[str, int],
    limits: Mapping[str, float],
    max_offset: float,
    ranking: Ranking | None = None,
) -> Shapes:
    """Make a parameterisation.

    Args:
        kind: One of `SHAPES`.
        costs: Costs of every architecture.
        metric: The cost whose target a budgeted one draws.
        least: Smallest width of each group.
        multiple: Widths are multiples of this, or of one for each group.
        limits: Highest cost by metric; a budgeted one draws no target above its own.
        max_offset: Of a budgeted or ranked one.
        ranking: The methods' scores, which a ranked one draws by.
    """
    projection = Projection(costs, metric, least, multiple)
    if kind == PER_GROUP:
        return PerGroup(projection, limits)
    limit = limits.get(metric)
    if kind == RANKED:
        return Ranked(projection, limit, max_offset, ranking)
    return Budgeted(projection, limit, max_offset)


def _kept(group: str) -> str:
    return f"kept/{group}"


def _offset(group: str) -> str:
    return f"offset/{group}"
