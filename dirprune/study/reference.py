"""Whether a network of the search can be better than the hypervolume's reference point at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective


def check_reference(
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    highest: Mapping[str, float],
    lowest: Mapping[str, float],
) -> None:
    """Refuse a reference value that no network of the search is better than, as far as costs can tell.

    Args:
        objectives: What the study trades.
        reference_point: Worst acceptable value per objective metric.
        highest: Each cost of the dense network.
        lowest: Each cost of the smallest architecture of the space.

    Raises:
        ConfigurationError: Naming the value and what can be reached.
    """
    for objective in objectives:
        metric, reference = objective.metric, reference_point[objective.metric]
        if metric in lowest:
            best = highest[metric] if objective.is_maximized else lowest[metric]
            whose = "dense network" if objective.is_maximized else "smallest network of the space"
        elif metric.endswith("accuracy"):
            best, whose = (1.0 if objective.is_maximized else 0.0), "best possible network"
        else:
            continue
        if reference >= best if objective.is_maximized else reference <= best:
            side = "below" if objective.is_maximized else "above"
            raise ConfigurationError(
                f"reference value of {metric} must be {side} {best:,g}, which the {whose} has, "
                f"got {reference:,g}; nothing could count in the hypervolume"
            )


def compare_reference(
    objectives: Sequence[Objective], reference_point: Mapping[str, float], dense: Mapping[str, float]
) -> str:
    """Return a warning where the dense network is no better than the reference point; empty elsewhere.

    Args:
        objectives: What the study trades.
        reference_point: Worst acceptable value per objective metric.
        dense: The dense network's metrics, without costs; those that are not here are not compared.
    """
    for objective in objectives:
        value, reference = dense.get(objective.metric), reference_point[objective.metric]
        if value is not None and (value <= reference if objective.is_maximized else value >= reference):
            return (
                f"warning: the dense network's {objective.metric} of {value:.4f} is no better than the "
                f"reference value {reference:g}; only networks that are better than it will count"
            )
    return ""
