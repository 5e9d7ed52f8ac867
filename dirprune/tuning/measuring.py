"""Latencies where trials run: on a cluster that is often another machine than the driver's, with a GPU."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn

from dirprune.errors import ConfigurationError, DirpruneError, one_line
from dirprune.groups import Grouping
from dirprune.latency import LatencyModel
from dirprune.study.latency import LatencyOptions, Measure, measure_here
from dirprune.tuning.cluster import LOCAL, Resources, connect
from dirprune.tuning.growth import HEAD, list_nodes

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup

logger = logging.getLogger("dirprune.tuning")

NOTICE_S = 5.0
PATIENCE_S = 600.0
"""How long a measurement waits until others have left its GPU or its node."""
PIN = 0.001
"""Of the resource that each node has alone, by its address: what binds a task to a node, and hinders none."""
DIGITS = 4
"""Of a resource, as Ray counts it."""
OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""What Ray calls the resources of a task."""


def choose_where(resources: Resources) -> Measure:
    """Return what measures with the resources that a worker of a trial has, where they are.

    Of GPUs it takes whole ones, and without GPUs all CPUs of a node, so that no trial of another study
    computes beside it; of its own study none runs yet.
    """
    if resources.address == LOCAL:
        gpus = resources.gpus_per_trial
        return partial(measure_with, 1.0 if gpus is None else gpus)  # where there are any

    def measure(
        network: nn.Module, grouping: Grouping, input_shape: Sequence[int], options: LatencyOptions
    ) -> LatencyModel:
        with connect(resources) as slots:
            import ray
            from ray.exceptions import RayError, RayTaskError

            bundle = _with_whole_devices(slots.bundle)
            try:
                with _reserved(bundle) as place:
                    task = ray.remote(measure_with).options(**as_options(bundle), **place, max_retries=0)
                    share = bundle.get("GPU", 0.0)
                    return ray.get(task.remote(share, network, grouping, input_shape, options))
            except RayTaskError as error:
                if isinstance(error.cause, DirpruneError):
                    raise error.cause from None
                raise _cannot_measure(error.cause) from error
            except RayError as error:
                raise _cannot_measure(error) from error

    return measure


def measure_with(
    gpu_share: float,
    network: nn.Module,
    grouping: Grouping,
    input_shape: Sequence[int],
    options: LatencyOptions,
) -> LatencyModel:
    """Measure in this process, on what a worker with so much of a GPU computes on; see `measure_here`."""
    from dirprune.tuning.gpu_share import choose_device

    return measure_here(network, grouping, input_shape, options, choose_device(gpu_share))


def as_options(bundle: Mapping[str, float]) -> dict[str, Any]:
    """Return the options of a task that asks for such resources, and for no CPU that is not named."""
    further = {name: amount for name, amount in bundle.items() if name not in OPTIONS}
    named = {OPTIONS[name]: amount for name, amount in bundle.items() if name in OPTIONS}
    return {"num_cpus": 0, **named, "resources": further}


def with_whole_gpus(bundle: Mapping[str, float]) -> dict[str, float]:
    """Return resources with a whole GPU in place of a part of one."""
    return {name: float(math.ceil(amount)) if name == "GPU" else amount for name, amount in bundle.items()}


def with_whole_node(bundle: Mapping[str, float], nodes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return resources with all CPUs of a node in place of a few.

    The node is one of those with most CPUs among all that have what is asked for: as many CPUs as a smaller
    one has would leave some of a larger one to others.

    Args:
        bundle: What a worker of a trial uses, by Ray's names.
        nodes: What each has, whether others use it or not.
    """
    n_cpus = [node["CPU"] for node in _find_fitting(bundle, nodes)]
    return {**bundle, "CPU": max(n_cpus, default=bundle["CPU"])}


def _find_fitting(
    bundle: Mapping[str, float], nodes: Sequence[Mapping[str, float]]
) -> list[Mapping[str, float]]:
    return [node for node in nodes if all(node.get(name, 0.0) >= bundle[name] for name in bundle)]


def _with_whole_devices(bundle: Mapping[str, float]) -> dict[str, float]:
    """Return resources with whole GPUs, or with all CPUs of a node; Ray is connected.

    It is the largest node of those that nobody uses now; where there is none, one is waited for. Nodes that
    a growing cluster may start count where none that lives has what a trial needs. What the job that runs
    this process holds is left out: it is not free before the study has ended.
    """
    if "GPU" in bundle:
        return with_whole_gpus(bundle)
    import ray

    living = _without_own_job([node for node in ray.nodes() if node["Alive"]])
    nodes: Sequence[Mapping[str, float]] = [node["Resources"] for node in living]
    if idle := _find_fitting(bundle, _list_idle(living)):
        largest = max(idle, key=lambda node: node["CPU"])
        own = next(name for name in largest if name.startswith("node:") and name != HEAD)
        return {**bundle, "CPU": largest["CPU"], own: PIN}
    if not _find_fitting(bundle, nodes):
        nodes = list_nodes(living, ray.get_runtime_context().get_node_id())
    return with_whole_node(bundle, nodes)


def _without_own_job(living: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return nodes without what the job holds that this process is of, if it is of one that holds anything.

    That is what `ray job submit --entrypoint-num-cpus` and its like ask for. Where Ray's dashboard does not
    tell, nothing is left out.
    """
    from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

    job = json.loads(os.environ.get(RAY_JOB_CONFIG_JSON_ENV_VAR, "{}")).get("metadata", {})
    if not (name := job.get("job_submission_id")):
        return list(living)
    from ray.util.state import list_actors  # asks the dashboard, which took the job

    try:
        holding = list_actors(filters=[("name", "=", f"_ray_internal_job_actor_{name}")], detail=True)
    except Exception as error:  # Ray's own, a connection's, or a time limit's
        said = one_line(error, has_type=True)
        logger.warning(
            "not known which CPUs the study's own job holds (%s): measurements may wait for them", said
        )
        return list(living)
    held = {actor.node_id: actor.required_resources or {} for actor in holding}
    return [
        {**node, "Resources": _subtract(node["Resources"], held.get(node["NodeID"], {}))} for node in living
    ]


def _subtract(resources: Mapping[str, float], held: Mapping[str, float]) -> dict[str, float]:
    return {name: round(amount - held.get(name, 0.0), DIGITS) for name, amount in resources.items()}


def _list_idle(living: Sequence[Mapping[str, Any]]) -> list[Mapping[str, float]]:
    """Return the resources of the nodes whose CPUs nobody holds."""
    from ray._private.state import available_resources_per_node  # there is no public way

    left = available_resources_per_node()
    found = [(node["Resources"], left.get(node["NodeID"], {})) for node in living]
    return [resources for resources, free in found if free.get("CPU", 0.0) >= resources.get("CPU", math.inf)]


def _is_ready(group: PlacementGroup, patience_s: float) -> bool:
    """Wait for resources, in steps between which Ctrl-C is heard."""
    deadline = time.monotonic() + patience_s
    while not group.wait(1):
        if time.monotonic() >= deadline:
            return False
    return True


@contextmanager
def _reserved(bundle: Mapping[str, float]) -> Iterator[dict[str, Any]]:
    """Hold whole GPUs, or a node's CPUs, for a while, and yield the options of a task that uses them.

    Raises:
        ConfigurationError: If others do not leave them in `PATIENCE_S`.
    """
    from ray.util import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    what, where = f"all {bundle['CPU']:g} CPUs of a node", "with CPUs"
    if "GPU" in bundle:
        what, where = "a whole GPU", "on a GPU"
    group = placement_group([dict(bundle)])
    try:
        if not _is_ready(group, NOTICE_S):
            logger.warning("latencies are measured %s that nobody else uses: waiting for %s", where, what)
            if not _is_ready(group, PATIENCE_S):
                raise ConfigurationError(
                    f"expected {what} to measure latencies on, got none in {PATIENCE_S / 60:g} minutes: "
                    "others have them, or no such machine came; try again later, or --latency FILE of "
                    "dirprune fit-latency"
                )
        yield {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0)}
    finally:
        remove_placement_group(group)


def _cannot_measure(error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"expected a node of the cluster to measure latencies, got {one_line(error, has_type=True)}; "
        "try --latency FILE, which dirprune fit-latency writes there"
    )
