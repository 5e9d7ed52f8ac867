"""What is asked of a cluster's machines before a study: the same software, and files that all of them see."""

from __future__ import annotations

import platform
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dirprune.errors import ConfigurationError, DirpruneError, StorageError, StudyError
from dirprune.records.folder import StudyFolder
from dirprune.remote import RemoteFolder
from dirprune.tuning.cluster import LOCAL, Resources, connect
from dirprune.tuning.growth import describe_absent
from dirprune.tuning.probe import answer
from dirprune.tuning.software import check_software, describe_software

PATIENCE_S = 180.0
STORE_PATIENCE_S = 5.0


def check_machines(resources: Resources, folder: StudyFolder, say: Callable[[str], None]) -> None:
    """Let each machine of a cluster say what it runs on, and read and write where the study's files lie.

    A Ray of this machine alone needs neither; of a storage its own access is checked.

    Args:
        resources: Of which cluster.
        folder: The study's; its storage, or else the folder above it, must be everybody's.
        say: Takes a line that names listed machines which have not joined; they still may.

    Raises:
        ConfigurationError: Naming the machine that has other software, or does not see the files.
    """
    place = folder.remote or RemoteFolder(str(folder.output.absolute()))
    place = RemoteFolder(place.uri, STORE_PATIENCE_S)
    if resources.address != LOCAL:
        with connect(resources):
            if absent := describe_absent():
                say(absent)
            _ask_all(place)
    elif folder.remote is not None:
        name = f".probe-{uuid.uuid4().hex}"
        _write(place, name, b"")
        place.remove(name)


def _ask_all(place: RemoteFolder) -> None:
    """Run `answer` on every living node at once."""
    nodes = list_addresses()
    name, token = f".probe-{uuid.uuid4().hex}", uuid.uuid4().bytes
    _write(place, name, token)
    try:
        answers = ask_nodes(nodes, answer, lambda node: (place, name, node))
        for node, (software, seen) in answers.items():
            check_software(describe_software(), nodes[node], software)
            _check_sight(place, nodes[node], seen, f"{name}-{node}", token)
    finally:
        for left in (name, *(f"{name}-{node}" for node in nodes)):
            place.remove(left)


def list_addresses() -> dict[str, str]:
    """Return the address of every living node, by its id."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def ask_nodes(
    nodes: Mapping[str, str],
    question: Callable[..., Any],
    arguments: Callable[[str], tuple[Any, ...]],
    *,
    task: str = "run a task",
    kind: type[DirpruneError] = ConfigurationError,
) -> dict[str, Any]:
    """Run a function on nodes, on all at once.

    Args:
        nodes: Their addresses by id.
        question: What is run there.
        arguments: Returns its arguments for a node's id.
        task: What it does, for the message.
        kind: Of the error where a node cannot.
    Returns:
        What it returned on each node that has not gone meanwhile.
    Raises:
        DirpruneError: As the function raised it, or of the given kind, naming the node that cannot run it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ask = ray.remote(num_cpus=0, max_retries=0)(question)
    asked = {}
    for node in nodes:
        where = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[node] = ask.options(scheduling_strategy=where).remote(*arguments(node))
    answers = {}
    for node, reply in asked.items():
        try:
            answers[node] = ray.get(reply, timeout=PATIENCE_S)
        except Exception as error:  # a node that cannot even run the question, unless it is gone by now
            cause = getattr(error, "cause", None)
            if isinstance(cause, DirpruneError):
                raise cause from None
            if node not in list_addresses():
                continue
            raise kind(
                f"expected node {nodes[node]} to {task}, got {type(error).__name__} "
                f"after up to {PATIENCE_S:g} s; look at its Ray, or remove it from the cluster"
            ) from error
    return answers


def cannot_see(folder: Path) -> StudyError:
    """Return the error of a worker whose machine does not see a folder of the study."""
    return StudyError(
        f"node {platform.node()} does not see {folder}, where the study's files lie; mount it there, or "
        "start the study with --storage"
    )


def _check_sight(
    place: RemoteFolder, machine: str, seen: bytes | str | None, left: str, token: bytes
) -> None:
    """Compare what a node saw and left with what is there.

    Raises:
        ConfigurationError: If it sees other files than this machine.
    """
    if seen != token or place.read(left) != token:
        reason = seen if isinstance(seen, str) else "it does not see what this machine writes there"
        raise ConfigurationError(
            f"expected files that all nodes share in {place.uri}, node {machine} has none ({reason}); "
            "try --storage with a shared folder or s3://bucket/folder"
        )


def _write(place: RemoteFolder, name: str, content: bytes) -> None:
    try:
        place.write(name, content)
    except StorageError as error:
        raise ConfigurationError(f"{error}; check the address, its bucket and your rights") from error
