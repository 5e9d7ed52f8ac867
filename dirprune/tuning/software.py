"""The software of a node, which must be its head's: found out before Ray starts on it.

    python -m dirprune.tuning.software --write FILE      # on the head, which sends the file to its workers
    python -m dirprune.tuning.software --compare FILE    # on a worker: exit status 2 and a line if it differs

Ray itself ends on a node of another version, in the log of the head's autoscaler, and nobody hears of it.
Loads nothing that takes long.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dirprune.errors import ConfigurationError, DirpruneError
from dirprune.files import read_json, write_json

PACKAGES = ("ray", "torch", "dirprune")
SCHEMA = 1


def describe_software() -> dict[str, str]:
    """Return the versions of what a trial needs: Python and the packages that must be the same everywhere."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "none"
    return versions


def check_software(own: Mapping[str, str], machine: str, found: Mapping[str, str]) -> None:
    """Compare a machine's software with this one's.

    Raises:
        ConfigurationError: Naming the machine and the first difference.
    """
    for name, wanted in own.items():
        if found.get(name) != wanted:
            raise ConfigurationError(
                f"expected {name} {wanted} on every node, as where the study is driven, node {machine} has "
                f"{found.get(name, 'none')}; install the same there"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare; return the exit status."""
    parser = argparse.ArgumentParser(prog="dirprune.tuning.software", description="The software of a node.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="FILE", type=Path)
    what.add_argument("--compare", metavar="FILE", type=Path)
    given = parser.parse_args(arguments)
    if given.write:
        write_json(given.write, describe_software(), schema=SCHEMA)
        return 0
    try:
        check_software(read_json(given.compare, SCHEMA), platform.node(), describe_software())
    except DirpruneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
