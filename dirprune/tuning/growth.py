"""The nodes that a cluster has, and those that Ray's autoscaler may still add to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

DEFINITION = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts a cluster's definition on its head, for the autoscaler that runs there."""
HEAD = "node:__internal_head__"
"""The resource by which Ray marks the head."""


def list_nodes(
    living: Sequence[Mapping[str, Any]], own_id: str, definition: Path = DEFINITION
) -> list[Mapping[str, float]]:
    """Return the resources of each node that lives or may still be started.

    Only the head knows its cluster's definition; for a driver elsewhere, and for a cluster that has none, the
    living nodes are all. Of node types whose resources nobody knows none is expected: Ray fills in what a
    cloud says of its machines.

    Args:
        living: The nodes as `ray.nodes` gives them, without the dead ones.
        own_id: The id of the node that this process is on.
        definition: The cluster's definition.
    """
    found = [node["Resources"] for node in living]
    is_head = any(node["NodeID"] == own_id and HEAD in node["Resources"] for node in living)
    if not is_head or not definition.expanduser().is_file():
        return found
    n_workers = sum(HEAD not in resources for resources in found)
    return [*found, *_read_workers(definition.expanduser())[n_workers:]]


def _read_workers(path: Path) -> list[Mapping[str, float]]:
    """Return the resources of each worker that a definition allows."""
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    most = int(definition.get("max_workers", 0))
    kinds = [
        [kind["resources"]] * min(most, int(kind.get("max_workers", most)))
        for name, kind in definition.get("available_node_types", {}).items()
        if name != definition.get("head_node_type") and kind.get("resources")
    ]
    return list(chain.from_iterable(kinds))[:most]
