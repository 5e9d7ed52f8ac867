"""A user's own importance methods on their way to workers, where methods are created by name."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any

from dirprune.errors import ImportanceError, one_line
from dirprune.importance import Method
from dirprune.importance.registry import adopt, get_code
from dirprune.tuning.cluster import Resources, connect
from dirprune.tuning.machines import ask_nodes, list_addresses


@dataclass(frozen=True)
class _Place:
    """A method of a module, without its class, which is found there by name."""

    module: str
    qualname: str
    others: Mapping[str, Any]


@dataclass(frozen=True)
class OwnMethods:
    """Methods from outside this package, as they are sent.

    Attributes:
        whole: Those of the study script and the like, whose classes Ray sends by value.
        places: Those of modules, which are imported where they arrive.
    """

    whole: tuple[Method, ...] = ()
    places: tuple[_Place, ...] = ()

    @classmethod
    def of(cls, methods: Mapping[str, Method]) -> OwnMethods:
        """Return methods, by name, as they can be sent."""
        whole, places = [], []
        for method in methods.values():
            others = {field.name: getattr(method, field.name) for field in fields(Method) if field.init}
            others["sent_code_sha256"] = method.code_sha256
            factory = others.pop("factory")
            if _is_in_module(factory):
                places.append(_Place(factory.__module__, factory.__qualname__, others))
            else:
                whole.append(Method(factory=factory, **others))
        return cls(tuple(whole), tuple(places))

    def register(self) -> None:
        """Make the methods known in this process.

        Raises:
            ImportanceError: If the module of one of them cannot be imported here, or has other code.
        """
        for place in self.places:
            try:
                factory = attrgetter(place.qualname)(importlib.import_module(place.module))
            except Exception as error:  # whatever a user's module raises
                raise ImportanceError(
                    f"importance method {place.others['name']!r} of the module {place.module!r} cannot be "
                    f"loaded on node {platform.node()} ({one_line(error, has_type=True)}); put the method "
                    "into the study script, or its module beside the script, into PYTHONPATH of every node, "
                    "or into py_modules of a runtime_env of Ray"
                ) from error
            method = Method(factory=factory, **place.others)
            if get_code(factory) != method.code_sha256:
                raise ImportanceError(
                    f"node {platform.node()} has other code of the module {place.module!r} than the study's "
                    f"for the importance method {method.name!r}; put the same file there, or start the study "
                    "again if the file was edited; a constant that is computed at import, such as "
                    "os.cpu_count() or time.time(), may be why, too: compute it in the method"
                )
            adopt(method)
        for method in self.whole:
            adopt(method)


def _is_in_module(factory: type) -> bool:
    """Return whether a class is found by its name in a module that may be imported elsewhere."""
    module = sys.modules.get(factory.__module__)
    if module is None or factory.__module__ == "__main__" or "<locals>" in factory.__qualname__:
        return False
    try:
        return attrgetter(factory.__qualname__)(module) is factory
    except AttributeError:  # another name is left of it
        return False


def check_own_methods(resources: Resources, methods: OwnMethods) -> None:
    """Let each machine import the modules that methods are to be found in.

    Args:
        resources: Of which cluster.
        methods: Those of the study; without any of a module nobody is asked.
    Raises:
        ImportanceError: Naming the method and the machine.
    """
    if not methods.places:
        return
    with connect(resources):
        names = ", ".join(sorted({place.module for place in methods.places}))
        task = f"import the modules of importance methods ({names})"
        ask_nodes(
            list_addresses(), OwnMethods.register, lambda node: (methods,), task=task, kind=ImportanceError
        )
