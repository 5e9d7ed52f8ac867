"""A user's own importance method from the place that a command names: FILE.py:NAME."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dirprune.cli.own_network import run_file
from dirprune.errors import ConfigurationError, suggest
from dirprune.importance import get_method, list_methods

SUFFIX = ".py"


def find_method(place: str) -> str:
    """Return the name of a method; of FILE.py:NAME the file is run, which registers it.

    Args:
        place: NAME or FILE.py:NAME.
    Raises:
        ConfigurationError: If there is no such file, it fails, or it registers no such method.
    """
    file, _, name = place.rpartition(":")
    if not file.endswith(SUFFIX):
        if place.endswith(SUFFIX):
            raise ConfigurationError(f"expected --method FILE.py:NAME, got {place!r}; try {place}:NAME")
        return place
    if not Path(file).is_file():
        raise ConfigurationError(f"expected a file with the method in --method, found none at {file}")
    module = run_file(Path(file)).__name__
    methods = {known: get_method(known) for known in list_methods()}
    registered = [known for known, method in methods.items() if method.factory.__module__ == module]
    if name not in registered:
        if name in methods and methods[name].is_users_own:
            other = methods[name].factory.__module__
            raise ConfigurationError(
                f"expected {file} to register the method {name!r}, it is registered by {other}; "
                f"try {_find_file(other)}:{name}"
            )
        raise ConfigurationError(
            f"expected {file} to register the method {name!r}{suggest(name, registered)}; "
            f"try @register({name!r}, ...)"
        )
    return name


def _find_file(module: str) -> str:
    """Return the file of a module, as it is called from here."""
    file = getattr(sys.modules.get(module), "__file__", None) or "FILE.py"
    return os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
