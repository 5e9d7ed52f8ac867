"""What a study optimises: a metric and the direction in which it is better."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from dirprune.cost import LATENCY
from dirprune.errors import ConfigurationError, suggest
from dirprune.pareto import Direction

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*")


@dataclass(frozen=True)
class Objective:
    """A metric to optimise.

    Args:
        metric: Name of a metric that every finished trial reports: val_accuracy, macs, val_<your own>.
        direction: "maximize" or "minimize".
        margin: Relative error of the metric's values, >= 0: values that differ by less than both errors are
            equal when it is decided which trials are on the front.
    Raises:
        ConfigurationError: If the name or the direction cannot work, or the metric is one of the test split.
    """

    metric: str
    direction: Direction
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.metric):
            raise ConfigurationError(
                f"an objective's metric must begin with a letter and hold letters, digits, '_', '.' and '-', "
                f"got {self.metric!r}; try 'val_accuracy'"
            )
        if self.direction not in get_args(Direction):
            raise ConfigurationError(
                f"unknown direction {self.direction!r} of objective {self.metric}"
                + suggest(str(self.direction), get_args(Direction))
            )
        if self.metric.startswith("test_"):
            own = self.metric.removeprefix("test_")
            raise ConfigurationError(
                f"objective {self.metric} is of the test split, which decides nothing; try val_{own}"
            )

    @classmethod
    def parse(cls, text: str) -> Objective:
        """Return the objective that "metric:direction" names, such as "val_accuracy:maximize".

        Raises:
            ConfigurationError: If the text is not of that form.
        """
        metric, separator, direction = text.partition(":")
        if not separator:
            raise ConfigurationError(f"expected metric:direction, got {text!r}; try 'val_accuracy:maximize'")
        return cls(metric.strip(), direction.strip())  # type: ignore[arg-type]  # checked at construction

    def __str__(self) -> str:
        return f"{self.metric}:{self.direction}"

    @property
    def is_maximized(self) -> bool:
        """Whether higher is better."""
        return self.direction == "maximize"


def read_objectives(description: Mapping[str, Any]) -> tuple[Objective, ...]:
    """Return the objectives of a study as `study.json` describes it, latency with the error of its model."""
    margins = {LATENCY: description["latency"]["error"]} if "latency" in description else {}
    return tuple(
        Objective(metric, direction, margins.get(metric, 0.0))
        for metric, direction in description["objectives"]
    )
