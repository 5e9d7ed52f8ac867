"""The hypervolume of a study's finished trials, and how it grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dirprune.pareto import hypervolume, to_losses
from dirprune.records.front import GrowingFront
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective


def compute_hypervolume(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    dense_costs: Mapping[str, float],
) -> float:
    """Compute the volume between the finished trials and the study's reference point.

    Args:
        records: Trials of any state; only complete, acceptable ones with all objectives count.
        objectives: What the study trades.
        reference_point: Worst acceptable value per objective metric.
        dense_costs: The dense network's costs; an objective named here is measured in fractions of it, so
            that the volume compares between networks. Other metrics count as they are.

    Returns:
        The volume, >= 0; 0 while no trial is strictly better than the reference point in every objective.
    """
    return _compute(records, objectives, reference_point, dense_costs, error=0.0)


def bound_hypervolume(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    dense_costs: Mapping[str, float],
) -> tuple[float, float]:
    """Return the least and the largest volume that the margins of the objectives allow.

    The volume falls with every loss, so that it is least where each value is worse by the whole margin, and
    largest where each is better by it. The reference point has no error. Without margins both are the volume.

    Args:
        records, objectives, reference_point, dense_costs: As `compute_hypervolume` takes them.
    """
    least, largest = (
        _compute(records, objectives, reference_point, dense_costs, error) for error in (1.0, -1.0)
    )
    return least, largest


def _compute(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    dense_costs: Mapping[str, float],
    error: float,
) -> float:
    """Return the volume if each value were worse by so many margins."""
    metrics = [objective.metric for objective in objectives]
    scale = np.array([float(dense_costs.get(metric, 1.0)) for metric in metrics])
    points = [record.objectives(metrics) for record in records if record.is_candidate]
    values = np.array([point for point in points if point is not None], dtype=float).reshape(-1, len(metrics))
    directions = [objective.direction for objective in objectives]
    reference = np.array([[reference_point[metric] for metric in metrics]], dtype=float)
    margins = np.array([objective.margin for objective in objectives])
    losses = to_losses(values / scale, directions) + error * margins * np.abs(values / scale)
    return hypervolume(losses, to_losses(reference / scale, directions)[0])


@dataclass(frozen=True)
class Growth:
    """What a study had after one more finished trial.

    Attributes:
        record: The trial.
        n_complete: Finished trials by then, >= 1.
        hypervolume: See `compute_hypervolume`.
        front_size: Trials on the front.
    """

    record: TrialRecord
    n_complete: int
    hypervolume: float
    front_size: int


def trace_hypervolume(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    dense_costs: Mapping[str, float],
) -> list[Growth]:
    """Return the hypervolume after each finished trial, in the order in which they ended.

    Args:
        records: Trials of any state.
        objectives, reference_point, dense_costs: As `compute_hypervolume` takes them.
    """
    complete = [record for record in records if record.state == "COMPLETE"]
    front = GrowingFront(objectives)
    volume = 0.0
    steps: list[Growth] = []
    for record in sorted(complete, key=lambda record: (record.last_time, record.number)):
        if front.grows_by(record):
            front.add_([record])
            volume = compute_hypervolume(front.undominated, objectives, reference_point, dense_costs)
        steps.append(Growth(record, len(steps) + 1, volume, len(front.records)))
    return steps
