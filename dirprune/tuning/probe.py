"""What a machine of a cluster says of itself; loads nothing that takes long, so that it answers soon."""

from __future__ import annotations

from typing import Any

from dirprune.errors import StorageError
from dirprune.remote import RemoteFolder
from dirprune.tuning.software import describe_software


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
