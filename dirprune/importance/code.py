"""What the code of a class is that comes from outside this package, so that a change of it is noticed."""

from __future__ import annotations

import inspect
import linecache
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from types import CodeType
from typing import Any

from dirprune.identity import digest, identify, keep_plain
from dirprune.importance.base import Selector

PACKAGE = __name__.partition(".")[0]


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


def hash_code(kind: type) -> str:
    """Return the digest of a class with all of its file that it uses.

    That is: its own base classes and methods, the functions and classes of the same file that they name, and
    its constants, named in capitals. Nothing that is imported is followed, but for base classes. The name of
    the module is left out, as a script's is another one where it is imported.
    """
    found: dict[Any, dict[str, Any]] = {}
    waiting: list[Any] = [kind]
    while waiting:
        one = waiting.pop(0)
        if one in found:
            continue
        is_class = inspect.isclass(one)
        named = dict(vars(one)) if is_class else _find_globals(one)
        constants = {} if is_class else {name: keep_plain(named[name]) for name in named if name.isupper()}
        found[one] = {**identify(one), "constants": constants}
        del found[one]["module"]
        values = [_unwrap(value) for value in named.values()]
        bases = [base for base in one.__bases__ if _is_own_base(base, one)] if is_class else []
        waiting += [*bases, *(value for value in values if _is_of_same_file(value, one))]
    return digest(list(found.values()))


def _find_globals(function: Any) -> dict[str, Any]:
    """Return what a function, with those inside it, names of its file, in alphabetical order."""
    names: set[str] = set()
    codes: list[CodeType] = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    known = function.__globals__
    return {name: known[name] for name in sorted(names) if name in known}


def _unwrap(value: Any) -> Any:
    """Return the function inside of a property, a static method or a decorated function."""
    if isinstance(value, staticmethod | classmethod):
        value = value.__func__
    elif isinstance(value, property):
        value = value.fget
    elif isinstance(value, cached_property):
        value = value.func
    return inspect.unwrap(value) if inspect.isroutine(value) else value


def _is_own_base(base: type, kind: type) -> bool:
    return is_from_outside(base) and (base.__module__ == kind.__module__ or issubclass(base, Selector))


def _is_of_same_file(value: Any, one: Any) -> bool:
    return (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == one.__module__
