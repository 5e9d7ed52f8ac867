"""A configuration drawn outside the study: at random, or near another one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

STEP = 0.15
"""Standard deviation of a change, in parts of a parameter's range."""


class Draft:
    """Answer what a space asks, and keep the answers, as Optuna's trials do.

    Args:
        rng: Draws.
        base: Values to stay at, or near; parameters that are not named are drawn evenly.
        change: How likely each of them changes: a number by a normal step, anything else to any value.
    Attributes:
        params: Answers by name.
        distributions: What they were drawn from, by name.
    """

    def __init__(
        self, rng: np.random.Generator, base: Mapping[str, Any] | None = None, change: float = 0.0
    ) -> None:
        self.rng, self.base, self.change = rng, base or {}, change
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_int(self, name: str, low: int, high: int) -> int:
        """Return a whole number."""
        value = self._draw(name, low - 0.5, high + 0.5)
        return self._keep(name, min(max(round(value), low), high), IntDistribution(low, high))

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Return a real number."""
        value = self._draw(name, low, high, is_log=log)
        return self._keep(name, min(max(value, low), high), FloatDistribution(low, high, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Return one of the choices."""
        value = self.base.get(name)
        if name not in self.base or value not in choices or self.rng.random() < self.change:
            value = choices[int(self.rng.integers(len(choices)))]
        return self._keep(name, value, CategoricalDistribution(tuple(choices)))

    def _draw(self, name: str, low: float, high: float, *, is_log: bool = False) -> float:
        if name in self.base and self.rng.random() >= self.change:
            return float(self.base[name])
        if is_log:
            low, high = math.log(low), math.log(high)
        if name in self.base:
            start = math.log(self.base[name]) if is_log else float(self.base[name])
            value = float(self.rng.normal(start, STEP * (high - low)))
        else:
            value = float(self.rng.uniform(low, high))
        return math.exp(value) if is_log else value

    def _keep(self, name: str, value: Any, distribution: BaseDistribution) -> Any:
        self.params[name], self.distributions[name] = value, distribution
        return value
