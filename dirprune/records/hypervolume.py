"""The hypervolume of a study's finished trials, and how it grew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirprune.identity import digest
from dirprune.pareto import hypervolume, to_losses
from dirprune.records.front import GrowingFront, find_comparable, find_undominated
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective

N_DRAWS = 400
"""Draws of the errors of a study's values."""
MEDIAN_SIZE = 0.6745
"""Median size of a standard normal number."""


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
    volume = _Volume(objectives, reference_point, dense_costs)
    return volume.compute([values for _, values in find_comparable(records, objectives)])


def draw_hypervolumes(
    records: Sequence[TrialRecord],
    objectives: Sequence[Objective],
    reference_point: Mapping[str, float],
    dense_costs: Mapping[str, float],
) -> NDArray[np.float64]:
    """Return what the volume may be by the errors of the objectives, shape (n_draws,).

    Half of the values are within their objective's margin, so that errors are drawn from a log-normal law
    whose median size is the margin. An architecture has the same error in all studies, which have the same
    model of latency; the errors of different ones are independent. Trials that others dominate as they are
    stay out: the best of many draws would be better the more of them there are. Without margins there is a
    single value, that of `compute_hypervolume`.

    Args:
        records, objectives, reference_point, dense_costs: As `compute_hypervolume` takes them.
    """
    margins = np.array([objective.margin for objective in objectives])
    if not margins.any():
        return np.array([compute_hypervolume(records, objectives, reference_point, dense_costs)])
    volume = _Volume(objectives, reference_point, dense_costs)
    front = find_undominated(records, objectives).values()
    if not front:
        return np.zeros(N_DRAWS)
    values = np.array([values for _, values in find_comparable(list(front), objectives)])
    deviations = np.log1p(margins) / MEDIAN_SIZE
    drawn = np.stack([_draw(record, len(objectives)) for record in front], axis=1)
    return np.array([volume.compute(values * np.exp(deviations * draw)) for draw in drawn])


def _draw(record: TrialRecord, n_objectives: int) -> NDArray[np.float64]:
    """Return standard normal numbers of an architecture, shape (N_DRAWS, n_objectives)."""
    seed = int(digest(dict(record.architecture)), 16)
    return np.random.default_rng(seed).standard_normal((N_DRAWS, n_objectives))


class _Volume:
    """The volume between points and the reference point of a study.

    Args:
        objectives, reference_point, dense_costs: As `compute_hypervolume` takes them.
    """

    def __init__(
        self,
        objectives: Sequence[Objective],
        reference_point: Mapping[str, float],
        dense_costs: Mapping[str, float],
    ) -> None:
        metrics = [objective.metric for objective in objectives]
        self._scale = np.array([float(dense_costs.get(metric, 1.0)) for metric in metrics])
        self._directions = [objective.direction for objective in objectives]
        self._corner = self._to_losses([[reference_point[metric] for metric in metrics]])[0]

    def compute(self, values: ArrayLike) -> float:
        """Return the volume of values, shape (n_points, n_objectives)."""
        return hypervolume(self._to_losses(values), self._corner)

    def _to_losses(self, values: ArrayLike) -> NDArray[np.float64]:
        table = np.asarray(values, dtype=float).reshape(-1, len(self._directions))
        return to_losses(table / self._scale, self._directions)


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
