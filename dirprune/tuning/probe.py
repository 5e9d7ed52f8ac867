"""What a machine of a cluster says of itself; loads nothing that takes long, so that it answers soon."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dirprune.errors import StorageError
from dirprune.remote import RemoteFolder

PACKAGES = ("ray", "torch", "dirprune")


def describe_software() -> dict[str, str]:
    """Return the versions of what a trial needs: Python and the packages that must be the same everywhere."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return versions


def answer(place: RemoteFolder, name: str, node: str) -> tuple[dict[str, str], bytes | str | None]:
    """Say what this machine runs on, and what it sees of a file; leave one of its own."""
    seen: Any
    try:
        seen = place.read(name)
        if seen is not None:
            place.write(f"{name}-{node}", seen)
    except StorageError as error:
        seen = str(error)
    return describe_software(), seen
