"""The known importance methods: one record for each, found and created by name."""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from dirprune.errors import ImportanceError, suggest
from dirprune.identity import identify
from dirprune.importance.base import Selector
from dirprune.importance.code import Seen, hash_code, hold_source, is_from_outside

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
        needs_gradients: Whether it differentiates the network's loss or outputs, with any options.
        stochastic: Whether another seed gives other scores.
        sent_code_sha256: Of a user's own method that another process has sent: `code_sha256` there.
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
    sent_code_sha256: str | None = None
    _seen: Seen = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def is_users_own(self) -> bool:
        """Whether it was registered from outside this package."""
        return is_from_outside(self.factory)

    @property
    def code_sha256(self) -> str:
        """The digest of the method's code as it is now, see `hash_code`.

        A constant that the method fills in use counts as it was when it was first looked at, which is when
        the method is first created; one that is bound to another object counts anew.
        """
        return self.sent_code_sha256 or hash_code(self.factory, self._seen)

    @property
    def options(self) -> dict[str, Any]:
        """The names of the method's options with their defaults, in order."""
        return dataclasses.asdict(self.factory.Options())

    @property
    def meanings(self) -> dict[str, str]:
        """What each option means and may be, as the attributes of its class are documented."""
        documented: dict[str, str] = {}
        for kind in reversed(self.factory.Options.__mro__):
            documented |= _read_attributes(kind.__dict__.get("__doc__") or "")
        return {name: documented[name] for name in self.options if name in documented}


_METHODS: dict[str, Method] = {}


def register(
    name: str,
    summary: str,
    *,
    paper: str = "",
    cost: str,
    version: int = 1,
    needs_data: bool,
    needs_gradients: bool,
    stochastic: bool,
) -> Callable[[SelectorType], SelectorType]:
    """Make a class known under a name, as a class decorator.

    A class of one's own may be defined again under its name, as in a notebook.

    Raises:
        ImportanceError: If the name is taken, or the class's `Options` is not a frozen dataclass.
    """

    def add(factory: SelectorType) -> SelectorType:
        _check_free(name, factory)
        options = factory.Options
        if not dataclasses.is_dataclass(options) or not options.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise ImportanceError(
                f"Options of {factory.__qualname__} must be a frozen dataclass, got {options!r}"
            )
        hold_source(factory)
        _METHODS[name] = Method(
            name, summary, paper, cost, factory, version, needs_data, needs_gradients, stochastic
        )
        return factory

    return add


def adopt(method: Method) -> None:
    """Make a user's own method known as another process has sent it, also where it is known here already.

    Raises:
        ImportanceError: If the name is taken by another class.
    """
    known = _METHODS.get(method.name)
    if known is None or known.factory is not method.factory:
        _check_free(method.name, method.factory)
    _METHODS[method.name] = method


def _check_free(name: str, factory: type[Selector]) -> None:
    """Raise ImportanceError if a name is taken by another class than an earlier one of the same place."""
    if name not in _METHODS:
        return
    places = [(kind.__module__, kind.__qualname__) for kind in (_METHODS[name].factory, factory)]
    if places[0] != places[1] or not is_from_outside(factory):
        raise ImportanceError(
            f"importance method {name!r} is taken by {'.'.join(places[0])}; choose another name"
        )


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
    record = get_method(name)
    if record.is_users_own:
        _ = record.code_sha256  # constants count as they are now, before the method fills them
    factory = record.factory
    known = _get_types(factory.Options)
    values = {}
    for option, value in (options or {}).items():
        if option not in known:
            raise ImportanceError(f"unknown option {option!r} of method {name!r}{suggest(option, known)}")
        values[option] = _read(value, known[option], f"option {option!r} of method {name!r}")
    return factory(factory.Options(**values))


def _get_types(options: type) -> dict[str, Any]:
    """Return the type of each option, as text where a script's own names in it were not sent along."""
    try:
        return typing.get_type_hints(options)
    except NameError:
        return {field.name: field.type for field in dataclasses.fields(options)}


def describe(method: Selector) -> dict[str, Any]:
    """Return what identifies a method together with its options, as JSON-able data.

    Registered classes are known by name and version, those from outside this package also by their code;
    others by module, name and code.
    """
    kind = type(method)
    record = _find_record(kind)
    if record is None:
        identity = {**identify(kind), "code_sha256": get_code(kind)}
    else:
        identity = {"name": record.name, "version": record.version}
        if record.is_users_own:
            identity["code_sha256"] = record.code_sha256
    return {**identity, "options": dataclasses.asdict(method.options)}


def get_code(factory: type[Selector]) -> str:
    """Return the digest of a class's code: of a registered one as its record has it."""
    record = _find_record(factory)
    return hash_code(factory) if record is None else record.code_sha256


def _find_record(factory: type[Selector]) -> Method | None:
    return next((known for known in _METHODS.values() if known.factory is factory), None)


def _read_attributes(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each attribute, on one line."""
    _, _, section = inspect.cleandoc(docstring).partition("Attributes:\n")
    texts: dict[str, str] = {}
    name = ""
    for line in section.splitlines():
        if not line.startswith("    "):
            break
        if not line.startswith("     "):
            name, _, line = line.strip().partition(": ")
        texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return texts


def _read(value: Any, expected: Any, what: str) -> Any:
    """Return a value as the type that the option has, so that 1, 1.0 and "1" are the same.

    Of several types, as in `int | str`, the first that fits in the order of `_READERS` is taken. Values of
    options of other types stay as they are.
    """
    is_union = typing.get_origin(expected) in (typing.Union, types.UnionType)
    kinds = typing.get_args(expected) if is_union else (expected,)
    if any(kind not in _READERS for kind in kinds):
        return value
    for kind, (_, read) in _READERS.items():
        if kind in kinds:
            try:
                return read(value)
            except ValueError:
                continue
    named = [name for kind, (name, _) in _READERS.items() if kind in kinds]
    raise ImportanceError(f"{what} must be {' or '.join(named)}, got {value!r}")


def _read_none(value: Any) -> None:
    if value is not None and value != "none":
        raise ValueError


def _read_truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("true", "false"):
        raise ValueError
    return str(value).lower() == "true"


def _read_number(value: Any) -> float:
    number = (
        float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    )
    if math.isnan(number):
        raise ValueError
    return number


def _read_whole_number(value: Any) -> int:
    number = _read_number(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def _read_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


_READERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    types.NoneType: ("none", _read_none),
    bool: ("true or false", _read_truth),
    int: ("a whole number", _read_whole_number),
    float: ("a number", _read_number),
    str: ("text", _read_text),
}
"""How options of each type are called and read; a reader raises ValueError where a value does not fit."""
