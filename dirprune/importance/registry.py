"""The known importance methods: one record for each, found and created by name."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from dirprune.errors import ImportanceError, suggest
from dirprune.identity import identify
from dirprune.importance.base import Selector

SelectorType = TypeVar("SelectorType", bound=type[Selector])


@dataclass(frozen=True)
class Method:
    """What is known of an importance method without running it.

    Attributes:
        name: What a user types.
        summary: One line.
        paper: Where it comes from; empty when it needs no citation.
        cost: What it takes, such as "n + 1 coalitions a group"; n is the number of a group's channels.
        factory: The class; `factory(factory.Options(...))` makes one.
        version: Raised whenever the same inputs give other scores, so that older cached scores are not used.
        needs_data: Whether it reads calibration images.
        needs_gradients: Whether it differentiates the loss.
        stochastic: Whether another seed gives other scores.
    """

    name: str
    summary: str
    paper: str
    cost: str
    factory: type[Selector]
    version: int
    needs_data: bool
    needs_gradients: bool
    stochastic: bool

    @property
    def options(self) -> dict[str, Any]:
        """The names of the method's options with their defaults, in order."""
        return dataclasses.asdict(self.factory.Options())


_METHODS: dict[str, Method] = {}


def register(
    name: str,
    summary: str,
    *,
    paper: str = "",
    cost: str = "",
    version: int = 1,
    needs_data: bool,
    needs_gradients: bool,
    stochastic: bool,
) -> Callable[[SelectorType], SelectorType]:
    """Make a class known under a name, as a class decorator.

    Raises:
        ImportanceError: If the name is taken, or the class's `Options` is not a frozen dataclass.
    """

    def add(factory: SelectorType) -> SelectorType:
        if name in _METHODS:
            taken_by = _METHODS[name].factory
            raise ImportanceError(
                f"importance method {name!r} is taken by {taken_by.__module__}.{taken_by.__qualname__}; "
                "choose another name"
            )
        options = factory.Options
        if not dataclasses.is_dataclass(options) or not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise ImportanceError(
                f"Options of {factory.__qualname__} must be a frozen dataclass, got {options!r}"
            )
        _METHODS[name] = Method(
            name, summary, paper, cost, factory, version, needs_data, needs_gradients, stochastic
        )
        return factory

    return add


def list_methods(pattern: str = "*") -> list[str]:
    """Return the names of the known methods that match a pattern with wildcards, sorted."""
    return sorted(name for name in _METHODS if fnmatchcase(name, pattern))


def get_method(name: str) -> Method:
    """Return the record of a method.

    Raises:
        ImportanceError: If no method has that name; the nearest known one is named.
    """
    if name not in _METHODS:
        raise ImportanceError(f"unknown importance method {name!r}{suggest(name, _METHODS)}")
    return _METHODS[name]


def create(name: str, options: Mapping[str, Any] | None = None) -> Selector:
    """Create a method by name.

    Args:
        name: One of `list_methods()`.
        options: Options by name; text is read as the type that the option has, missing ones get the default.
    Raises:
        ImportanceError: If the method or an option is unknown, or a value cannot be used.
    """
    factory = get_method(name).factory
    known = typing.get_type_hints(factory.Options)
    values = {}
    for option, value in (options or {}).items():
        if option not in known:
            raise ImportanceError(f"unknown option {option!r} of method {name!r}{suggest(option, known)}")
        values[option] = _read(value, known[option], f"option {option!r} of method {name!r}")
    return factory(factory.Options(**values))


def describe(method: Selector) -> dict[str, Any]:
    """Return what identifies a method together with its options, as JSON-able data.

    Registered classes are known by name and version, others by module, name and source.
    """
    identity: dict[str, Any] = {}
    for record in _METHODS.values():
        if record.factory is type(method):
            identity = {"name": record.name, "version": record.version}
    return (identity or identify(type(method))) | {"options": dataclasses.asdict(method.options)}


def _read(value: Any, expected: Any, what: str) -> Any:
    """Return a value as int, float or str, as the option has it, so that 1, 1.0 and "1" are the same."""
    if expected is str and isinstance(value, str):
        return value
    if expected in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if expected is float and number == number:
            return number
        if expected is int and number.is_integer():
            return int(number)
    if expected not in (int, float, str):
        return value
    kind = {int: "a whole number", float: "a number", str: "text"}[expected]
    raise ImportanceError(f"{what} must be {kind}, got {value!r}")
