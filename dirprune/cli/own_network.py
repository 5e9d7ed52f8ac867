"""A user's own network from the place that a command names: FILE.py:NAME."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from dirprune.errors import ConfigurationError, one_line, suggest
from dirprune.identity import CONTENT, SOURCE, STATE, digest, identify

CARRIED = "which carries other values (defaults, a closure, bound arguments, tensors)"
OF_EXIT = '; try it below if __name__ == "__main__":'


def load_own_network(place: str, described: Mapping[str, Any]) -> Callable[[], nn.Module]:
    """Return the function that made a study's network, from the file that the user names; the file is run.

    Args:
        place: FILE.py:NAME.
        described: The study's network as its records describe it.
    Raises:
        ConfigurationError: If there is no such function, or it is not the study's.
    """
    if "module" not in described:
        name = described.get("name", "unknown")
        raise ConfigurationError(
            f"expected no --network: this study's is {name}, which dirprune knows; leave it out"
        )
    found = find_in_file(place, f"FILE.py:{described['name']}")
    got = identify(found)
    known = {CONTENT: got.get(CONTENT), **described}  # earlier versions did not look at it
    for key, what in ((SOURCE, "whose source is another"), (STATE, CARRIED), (CONTENT, CARRIED)):
        if got.get(key) != known.get(key):
            raise ConfigurationError(
                f"expected the network of this study, {described['name']}, got {place}, {what}; "
                "try the file as it was when the study began"
            )
    return found


def find_network(place: str) -> str | Callable[..., nn.Module]:
    """Return a known name as it is, and of FILE.py:NAME or module:name the function, whose code is run.

    Raises:
        ConfigurationError: If there is no such function, or the file or module fails.
    """
    module, colon, name = place.rpartition(":")
    if not colon:
        return place
    if module.endswith(".py"):
        return find_in_file(place, "own.py:build")
    sys.path.insert(0, "")
    try:
        return getattr(importlib.import_module(module), name)
    except SystemExit as error:
        raise ConfigurationError(
            f"the module {module} cannot be imported: {one_line(error, has_type=True)}{OF_EXIT}"
        ) from error
    except Exception as error:  # whatever a user's module raises
        raise ConfigurationError(
            f"expected a function that returns a network at {place!r}, got {one_line(error)}; "
            "try it from the folder in which the module lies"
        ) from error


def find_with_classes(
    place: str, classes: int | None
) -> tuple[str | Callable[..., nn.Module], dict[str, Any]]:
    """Return what `find_network` finds, and the options with which it has the outputs of `--classes`.

    Raises:
        ConfigurationError: If there is none, or `--classes` is given of a function.
    """
    found = find_network(place)
    if classes is None:
        return found, {}
    if not isinstance(found, str):
        raise ConfigurationError(f"--classes is of networks by name, {place} knows its own; leave it out")
    return found, {"n_classes": classes}


def find_in_file(place: str, example: str) -> Callable[..., nn.Module]:
    """Return a function or class from a file, which is run.

    Args:
        place: FILE.py:NAME.
        example: Of such a place, for the message.
    Raises:
        ConfigurationError: If there is no such file or function, or the file fails.
    """
    file, _, name = place.rpartition(":")
    if not file.endswith(".py") or not name:
        raise ConfigurationError(f"expected --network FILE.py:NAME, got {place!r}; try {example}")
    if not Path(file).is_file():
        raise ConfigurationError(f"expected a file with the network in --network, found none at {file}")
    found: Any = run_file(Path(file))
    known = [key for key, value in vars(found).items() if callable(value) and key[0] != "_"]
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise ConfigurationError(
            f"expected a function or class in {file}, unknown {name!r}{suggest(name, known)}"
        )
    return found


def ask_for_network(payload: Mapping[str, Any]) -> ConfigurationError:
    """Return what is wrong where a command needs a study's network, which is the user's own, and has none.

    Args:
        payload: What `study.json` holds.
    """
    name = payload["description"]["network"]["name"]
    return ConfigurationError(
        f"the network of study {payload['name']} is your own; try again with --network FILE.py:{name}"
    )


def run_file(file: Path) -> ModuleType:
    """Return a file's module; its neighbours can be imported by it, as when it is run as a script.

    A file is run once in a process. The module's name, which is in keys of scores, does not depend on the
    folder, unless another file of that name was run before.

    Raises:
        ConfigurationError: If it fails.
    """
    path = file.resolve()
    name = f"_own_{path.stem}"
    if name in sys.modules and sys.modules[name].__file__ != str(path):
        name += f"_{digest(str(path))[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a name that ends in .py has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where a class's source is looked up
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever a user's file raises
        del sys.modules[name]
        hint = OF_EXIT if isinstance(error, SystemExit) else ""
        raise ConfigurationError(f"{file} cannot be run: {one_line(error, has_type=True)}{hint}") from error
    return module
