"""Types of the options that only studies have: each says what it expected, with an example."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import click

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective
from dirprune.study.stopping import parse_duration

UNITS = {"GiB": 2**30, "MiB": 2**20}


class Duration(click.ParamType):
    """A time in seconds, or in minutes or hours with m or h behind it."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds, or fail with examples."""
        try:
            return parse_duration(str(value))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class Epochs(click.ParamType):
    """Numbers of epochs, written as 0,1,3."""

    name = "EPOCHS,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers, or fail with an example."""
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"expected numbers of epochs, got {str(value)!r}; for example 0,1,3", param, ctx)


class Objectives(click.ParamType):
    """Objectives, written as metric:direction,metric:direction."""

    name = "METRIC:DIRECTION,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Objective, ...]:
        """Return the objectives, or fail with an example."""
        try:
            return tuple(Objective.parse(part) for part in str(value).split(","))
        except ConfigurationError as error:
            self.fail(str(error), param, ctx)


class Metrics(click.ParamType):
    """Values by metric, written as metric=value,metric=value."""

    name = "METRIC=X,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return the values, or fail with an example."""
        if isinstance(value, Mapping):
            return dict(value)
        values = {}
        for part in str(value).split(","):
            metric, _, number = part.partition("=")
            try:
                values[metric.strip()] = float(number)
            except ValueError:
                self.fail(f"expected metric=number, got {part!r}; for example val_accuracy=0.9", param, ctx)
        return values


class Amounts(click.ParamType):
    """Amounts of what nodes have, written as name=amount,name=amount; memory in bytes, or with GiB or MiB."""

    name = "NAME=X,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, float]:
        """Return the amounts, or fail with an example."""
        amounts: dict[str, float] = {}
        for part in str(value).split(","):
            name, _, text = part.rpartition("=")
            name, suffix = name.strip(), text[-3:]
            is_in_units = name == "memory" and suffix in UNITS
            try:
                amount = float(text[:-3]) * UNITS[suffix] if is_in_units else float(text)
            except ValueError:
                amount = math.nan
            if not name or name in amounts or not 0 <= amount < math.inf:
                self.fail(
                    f"expected each resource once as name=amount, got {part!r}; "
                    "for example CPU=2,GPU=0.5,memory=4GiB,A100=1",
                    param,
                    ctx,
                )
            amounts[name] = amount
        return amounts
