"""Latencies where trials run: on a cluster that is often another machine than the driver's, with a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from dirprune.errors import ConfigurationError, DirpruneError, one_line
from dirprune.groups import Grouping
from dirprune.latency import LatencyModel
from dirprune.study.latency import LatencyOptions, Measure, measure_here
from dirprune.tuning.cluster import LOCAL, Resources, connect

OPTIONS = {"CPU": "num_cpus", "GPU": "num_gpus", "memory": "memory"}
"""What Ray calls the resources of a task."""


def choose_where(resources: Resources) -> Measure:
    """Return what measures with the resources that a worker of a trial has, where they are."""
    if resources.address == LOCAL:
        return measure_here

    def measure(
        network: nn.Module, grouping: Grouping, input_shape: Sequence[int], options: LatencyOptions
    ) -> LatencyModel:
        with connect(resources) as slots:
            import ray
            from ray.exceptions import RayError, RayTaskError

            task = ray.remote(measure_here).options(**as_options(slots.bundle), max_retries=0)
            try:
                return ray.get(task.remote(network, grouping, input_shape, options))
            except RayTaskError as error:
                if isinstance(error.cause, DirpruneError):
                    raise error.cause from None
                raise _cannot_measure(error.cause) from error
            except RayError as error:
                raise _cannot_measure(error) from error

    return measure


def as_options(bundle: Mapping[str, float]) -> dict[str, Any]:
    """Return the options of a task that asks for such resources, and for no CPU that is not named."""
    further = {name: amount for name, amount in bundle.items() if name not in OPTIONS}
    named = {OPTIONS[name]: amount for name, amount in bundle.items() if name in OPTIONS}
    return {"num_cpus": 0, **named, "resources": further}


def _cannot_measure(error: BaseException) -> ConfigurationError:
    return ConfigurationError(
        f"expected a node of the cluster to measure latencies, got {one_line(error, has_type=True)}; "
        "try --latency FILE, which dirprune fit-latency writes there"
    )
