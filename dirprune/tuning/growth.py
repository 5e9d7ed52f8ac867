"""The nodes that a cluster has, those that Ray's autoscaler may still add to it, and those that it cannot."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

DEFINITION = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` puts a cluster's definition on its head, for the autoscaler that runs there."""
AUTOSCALER_LOG = "monitor.out"
REFUSED = re.compile(r"error: (expected .* on every node, .*, node (\S+) has .*?); ")
"""How a node says in the autoscaler's log that its software is another; see `check_software`."""
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
    n_workers = sum(HEAD not in resources for resources in found)
    return [*found, *_list_workers(_read_definition(living, own_id, definition))[n_workers:]]


def describe_absent() -> str:
    """Return a line that names the machines of the cluster's list which have not joined; empty if all have.

    A machine whose software is not the head's never joins: what `dirprune.tuning.software` said there has
    come into the log of the head's autoscaler, which Ray shows nobody. The driver is connected to Ray.
    """
    import ray
    from ray._private.worker import global_worker

    if global_worker.node is None:  # a client, which is on no node
        return ""
    living = [node for node in ray.nodes() if node["Alive"]]
    own_id = ray.get_runtime_context().get_node_id()
    log = Path(global_worker.node.get_logs_dir_path()) / AUTOSCALER_LOG
    return name_absent(living, _read_definition(living, own_id), log)


def name_absent(living: Sequence[Mapping[str, Any]], definition: Mapping[str, Any], log: Path) -> str:
    """Return the line of `describe_absent`.

    Args:
        living: The nodes as `ray.nodes` gives them, without the dead ones.
        definition: The cluster's definition; empty if there is none.
        log: Of the head's autoscaler.
    """
    joined = {node["NodeManagerAddress"] for node in living}
    listed = definition.get("provider", {}).get("worker_ips") or []
    absent = [machine for machine in listed if not joined & {machine, _resolve(machine)}]
    if not absent:
        return ""
    said = REFUSED.findall(log.read_text(encoding="utf-8", errors="replace")) if log.is_file() else []
    names = {node["NodeManagerHostname"] for node in living}
    reasons = sorted({reason for reason, machine in said if machine not in names})
    where = "; ".join(reasons) or f"if they are on, {log} says why"
    return f"not in the cluster: {', '.join(absent)} ({where})"


def _resolve(machine: str) -> str:
    """Return the address of a machine that may be listed by its name, as Ray's launcher looks it up."""
    try:
        return socket.gethostbyname(machine)
    except OSError:
        return machine


def _read_definition(
    living: Sequence[Mapping[str, Any]], own_id: str, path: Path = DEFINITION
) -> Mapping[str, Any]:
    """Return the definition of the cluster whose head this process is on; elsewhere nothing."""
    is_head = any(node["NodeID"] == own_id and HEAD in node["Resources"] for node in living)
    if not is_head or not path.expanduser().is_file():
        return {}
    return yaml.safe_load(path.expanduser().read_text(encoding="utf-8")) or {}


def _list_workers(definition: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Return the resources of each worker that a definition allows."""
    most = int(definition.get("max_workers", 0))
    kinds = [
        [kind["resources"]] * min(most, int(kind.get("max_workers", most)))
        for name, kind in definition.get("available_node_types", {}).items()
        if name != definition.get("head_node_type") and kind.get("resources")
    ]
    return list(chain.from_iterable(kinds))[:most]
