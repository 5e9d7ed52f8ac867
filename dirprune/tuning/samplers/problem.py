"""What a study knows of a configuration before it is tried: where it lies, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.pareto import to_losses
from dirprune.study.shapes import Shapes, Suggests
from dirprune.study.space import Choice, Range
from dirprune.study.spec import StudySpec

Floats = NDArray[np.float64]

OFFSET = 0.5
"""Standard deviation of the offsets of spread architectures; see `Shapes.parameters`."""


class Problem(Protocol):
    """What a sampler that knows costs asks of a study.

    Attributes:
        reference: Losses of the hypervolume's corner, shape (n_objectives,); None: the worst ones known.
    """

    reference: Floats | None

    def look(
        self, trial: Suggests, architecture: Mapping[str, int] | None = None
    ) -> tuple[Floats, Floats] | None:
        """Draw a configuration and return its features and its losses, NaN where only a trial can tell.

        Args:
            trial: Draws.
            architecture: The configuration's own one, where it is not the one that is drawn.
        Returns:
            Shapes (n_features,), the same for all configurations and with distances that mean something, and
            (n_objectives,); None if a limit forbids it.
        """

    def spread(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return parameters of an architecture anywhere between the cheapest and the whole one."""


class StudyProblem:
    """The configurations of a study. Features are logarithms of keep ratios, and all other choices.

    Args:
        spec: The study.
        shapes: How its architectures are drawn.
        costs: Costs of any architecture.
        reference_point: The hypervolume's reference value of each objective.
    """

    def __init__(
        self, spec: StudySpec, shapes: Shapes, costs: CostModel, reference_point: Mapping[str, float]
    ) -> None:
        self.space, self.shapes, self.costs, self.limits = spec.space, shapes, costs, spec.limits
        self.metrics = [objective.metric for objective in spec.objectives]
        self.directions = spec.directions
        self.reference: Floats | None = self._to_losses(reference_point)
        options = [
            (method, name, value)
            for method, by_name in sorted(spec.space.methods.items())
            for name, values in sorted(by_name.items())
            for value in values
        ]
        keys: list[Any] = [*sorted(spec.space.methods), *options]
        self._places = {key: place for place, key in enumerate(keys)}

    def look(
        self, trial: Suggests, architecture: Mapping[str, int] | None = None
    ) -> tuple[Floats, Floats] | None:
        """Draw a configuration and return its features, and its costs as losses."""
        given = None if architecture is None else Architecture(architecture)
        drawn = self.space.suggest(trial, self.shapes, 0, "sampler", given)
        costs = self.costs.costs(drawn.architecture).as_dict()
        if any(costs[metric] > limit for metric, limit in self.limits.items()):
            return None
        chosen = np.zeros(len(self._places))
        chosen[self._places[drawn.method]] = 1.0
        for name, value in drawn.method_options.items():
            chosen[self._places[drawn.method, name, value]] = 1.0
        ratios = [math.log(drawn.architecture[name] / n) for name, n in self.costs.n_channels.items()]
        tuned = [_scale(choice, drawn.fine_tuning[name]) for name, choice in self.space.fine_tuning.items()]
        return np.concatenate([ratios, chosen, *tuned]), self._to_losses(costs)

    def spread(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return parameters of an architecture; costs, about quadratic in keep ratios, come out evenly."""
        share = math.sqrt(rng.uniform(self.space.min_keep_ratio**2, 1.0))
        kept = {}
        for name, widths in zip(self.shapes.projection.names, self.shapes.projection.widths, strict=True):
            wanted = widths[-1] * share ** math.exp(rng.normal(0.0, OFFSET))
            kept[name] = int(widths[np.argmin(np.abs(widths - wanted))])
        return self.shapes.parameters(kept)

    def _to_losses(self, values: Mapping[str, float]) -> Floats:
        known = [values.get(metric, math.nan) for metric in self.metrics]
        return np.asarray(to_losses(known, self.directions)[0])


def _scale(choice: Range | Choice, value: Any) -> Floats:
    """Return a real hyperparameter between 0 and 1, or a mark at one of the values of a choice."""
    if isinstance(choice, Choice):
        return np.array([float(value == other) for other in choice.values])
    low, high = float(choice.low), float(choice.high)
    if choice.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return np.array([(value - low) / (high - low) if high > low else 0.0])
