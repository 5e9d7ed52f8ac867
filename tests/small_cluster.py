"""A cluster of Ray on this machine for tests."""

from __future__ import annotations

from typing import Any

from ray.cluster_utils import Cluster

from dirprune.tuning.small_ray import without_idle_processes


class SmallCluster(Cluster):
    """A cluster whose nodes run no more than a local Ray of a study does: the rest takes seconds."""

    def add_node(self, *given: Any, **named: Any) -> Any:
        """Start a node; the first one is the head."""
        with without_idle_processes():
            return super().add_node(*given, **named)
