"""What the code of a class is that comes from outside this package, so that a change of it is noticed."""

from __future__ import annotations

import inspect
import linecache
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dirprune.identity import (
    CONTENT,
    SOURCE,
    Recall,
    digest,
    find_globals,
    hash_source,
    identify_definition,
    keep_plain,
    list_layers,
)
from dirprune.importance.base import Selector

PACKAGE = __name__.partition(".")[0]
Seen = dict[tuple[int, str], tuple[Any, Any]]


def is_from_outside(kind: type) -> bool:
    """Return whether a class is not of this package."""
    return kind.__module__.partition(".")[0] != PACKAGE


def hold_source(kind: type) -> None:
    """Let a class's source, and that of its bases, be what their files hold now, whatever becomes of those.

    For a class that was just defined: `inspect` reads a file again once it was edited, which is then not the
    code that is loaded. To hash the code at once is too early: functions below the class are not there yet.
    """
    for one in kind.__mro__:
        if issubclass(one, Selector) and is_from_outside(one):
            with suppress(OSError, TypeError):  # it has no file
                file = inspect.getsourcefile(one) or ""
                if Path(file).is_file():
                    lines = linecache.updatecache(file)
                    linecache.cache[file] = (0, None, lines, file)  # without a time it does not grow old


def hash_code(kind: type, seen: Seen | None = None) -> str:
    """Return the digest of a class with all of its file that it uses.

    That is: its own base classes and methods, the functions and classes of the same file that they name, with
    the wrappers that decorators of that file put around them, and its constants, named in capitals. Nothing
    that is imported is followed, but for base classes. Of objects that they name the class counts, of
    partials the function, but not the values in them. The name of the module is left out, as a script's is
    another one where it is imported.

    Args:
        kind: The class.
        seen: What earlier calls have kept of the objects that they met, with these objects. An object that is
            filled since counts as it was when it was first met; another one in its place counts as it is.
    """
    seen = {} if seen is None else seen
    met: Seen = {}

    def recall(value: Any, compute: Callable[[Any], Any]) -> Any:
        key = (id(value), compute.__name__)
        if key not in met:
            met[key] = seen.get(key) or (value, compute(value))
        return met[key][1]

    code = digest(_describe_code(kind, recall))
    for key in seen.keys() - met.keys():  # so that what was replaced is not held in memory
        seen.pop(key, None)
    seen.update(met)
    return code


def _describe_code(kind: type, recall: Recall) -> list[dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}  # by id, as a class may have no hash
    waiting: list[Any] = [kind]
    while waiting:
        one = waiting.pop(0)
        if id(one) in found:
            continue
        is_class = inspect.isclass(one)
        named = dict(vars(one)) if is_class else find_globals(one, recall)
        names = [] if is_class else [name for name in named if name.isupper()]
        constants = {name: recall(named[name], _keep) for name in names}
        found[id(one)] = {**identify_definition(one, recall), "constants": constants}
        del found[id(one)]["module"]
        if is_class:  # its functions are looked at by themselves
            found[id(one)].pop(CONTENT, None)
        elif hasattr(one, "__wrapped__"):  # `inspect` takes the source of what is inside for a wrapper's
            found[id(one)][SOURCE] = recall(one.__code__, hash_source)
        values = [part for value in named.values() for part in recall(value, _list_parts)]
        bases = [base for base in one.__bases__ if _is_own_base(base, one)] if is_class else []
        waiting += [*bases, *(value for value in values if _is_of_same_file(value, one))]
    return list(found.values())


def _keep(constant: Any) -> Any:
    try:
        return keep_plain(constant)
    except RecursionError:  # it contains itself
        return type(constant).__qualname__


def _list_parts(value: Any) -> list[Any]:
    return list(_open(value))


def _open(value: Any, around: tuple[Any, ...] = ()) -> Iterator[Any]:
    """Yield functions with their wrappers, and classes: the value, its parts, or the class of an object."""
    if isinstance(value, partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        for layer in list_layers(value):
            yield layer if inspect.isroutine(layer) or inspect.isclass(layer) else type(layer)
        return
    if not any(value is other for other in around):
        for part in parts:
            yield from _open(part, (*around, value))


def _is_own_base(base: type, kind: type) -> bool:
    return is_from_outside(base) and (base.__module__ == kind.__module__ or issubclass(base, Selector))


def _is_of_same_file(value: Any, one: Any) -> bool:
    return (inspect.isfunction(value) or inspect.isclass(value)) and _get_module(value) == _get_module(one)


def _get_module(one: Any) -> Any:
    """Return the name of the module of a class, or that a function is written in: a wrapper has another's."""
    return one.__module__ if inspect.isclass(one) else one.__globals__.get("__name__")
