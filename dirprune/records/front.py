"""Which of a study's trials are on its Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dirprune.pareto import front_mask, interval_front_mask, to_losses
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective


def mark_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Return the records with `is_front` set, in their order.

    Those of `find_undominated` are on the front, but for the ones that another one dominates once values
    within an objective's margin count as equal; see `dirprune.pareto.interval_front_mask`.
    """
    front = _thin_out(find_undominated(records, objectives), objectives)
    return [
        record if record.is_front == (record.number in front) else record.on_front(record.number in front)
        for record in records
    ]


def find_undominated(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> dict[int, TrialRecord]:
    """Return the trials that no other dominates by their values as they are, by number.

    Of the trials of `find_comparable` with the same values only the one with the lowest number counts: the
    others add nothing to choose from.
    """
    candidates: dict[tuple[float, ...], TrialRecord] = {}
    for record, values in find_comparable(records, objectives):
        candidates.setdefault(values, record)
    if not candidates:
        return {}
    losses = to_losses(np.array(list(candidates)), [objective.direction for objective in objectives])
    kept = zip(candidates.values(), front_mask(losses), strict=True)
    return {record.number: record for record, is_kept in kept if is_kept}


def find_comparable(
    records: Sequence[TrialRecord], objectives: Sequence[Objective]
) -> list[tuple[TrialRecord, tuple[float, ...]]]:
    """Return the trials that may be on a front, by number, each with the objectives' values.

    They are the complete, acceptable ones with a finite value for each objective.
    """
    metrics = [objective.metric for objective in objectives]
    ordered = sorted(records, key=lambda record: record.number)
    return [
        (record, values)
        for record in ordered
        if record.is_candidate and (values := record.objectives(metrics)) is not None
    ]


def _thin_out(undominated: Mapping[int, TrialRecord], objectives: Sequence[Objective]) -> set[int]:
    """Return which trials of `find_undominated` are left by the margins of the objectives."""
    margins = np.array([objective.margin for objective in objectives])
    if not undominated or not margins.any():
        return set(undominated)
    metrics = [objective.metric for objective in objectives]
    values = np.array([[record.metrics[metric] for metric in metrics] for record in undominated.values()])
    losses = to_losses(values, [objective.direction for objective in objectives])
    errors = margins * np.abs(values)
    is_left = interval_front_mask(losses - errors, losses + errors)
    return {number for number, left in zip(undominated, is_left, strict=True) if left}


def sort_front(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the records that are on the front, sorted by macs and then by number."""
    front = [record for record in records if record.is_front]
    return sorted(front, key=lambda record: (record.metrics.get("macs", 0.0), record.number))


def find_judged(objectives: Sequence[Objective]) -> Objective | None:
    """Return the first objective of validation; None where costs alone are objectives."""
    return next((objective for objective in objectives if objective.metric.startswith("val_")), None)


def find_cost(objectives: Sequence[Objective]) -> str:
    """Return the metric of the first objective that is a cost; where none is, macs."""
    return next((o.metric for o in objectives if not o.metric.startswith("val_")), "macs")


def choose_best(records: Sequence[TrialRecord], objectives: Sequence[Objective], cost: str) -> TrialRecord:
    """Return the trial that validation chooses.

    The first objective of validation decides (without one, the first), then the cost, then the other
    objectives in their order, then the number.

    Args:
        records: Trials with a value for each objective, at least one.
        objectives: What the study trades.
        cost: The metric by which one of equals is cheaper; a trial without it comes last of them.
    """
    judged = find_judged(objectives) or objectives[0]
    order = [judged, *(objective for objective in objectives if objective != judged)]
    values = [[record.metrics[objective.metric] for objective in order] for record in records]
    losses = to_losses(values, [objective.direction for objective in order])

    def to_key(place: int) -> tuple[float, ...]:
        first, *others = losses[place].tolist()
        record = records[place]
        return first, record.metrics.get(cost, math.inf), *others, record.number

    return records[min(range(len(records)), key=to_key)]


MEMBERS = ("best", "smallest", "knee")
"""Members of a front that go by a name; see `find_member`."""


def find_member(front: Sequence[TrialRecord], objectives: Sequence[Objective], which: str) -> TrialRecord:
    """Return a member of a front by its name.

    Args:
        front: Trials on the front, at least one.
        objectives: What the study trades.
        which: "best": what `choose_best` chooses, by the cost of `find_cost`; "smallest": with the fewest
            MACs; "knee": with the least sum of losses, each scaled from 0 to 1 over the front, which for two
            objectives is the point farthest below the line between the front's ends. Of equally small ones,
            and of equal knees, it is the one with the lowest number.
    """
    if which == "best":
        return choose_best(front, objectives, find_cost(objectives))
    ordered = sorted(front, key=lambda record: record.number)
    if which == "smallest":
        keys = np.array([record.metrics["macs"] for record in ordered])
    else:
        values = [[record.metrics[objective.metric] for objective in objectives] for record in ordered]
        losses = to_losses(values, [objective.direction for objective in objectives])
        spans = np.ptp(losses, axis=0)
        keys = ((losses - losses.min(axis=0)) / np.where(spans > 0, spans, 1.0)).sum(axis=1)
    return ordered[int(np.argmin(keys))]


class GrowingFront:
    """The front of a study whose trials end one after the other; the same as `mark_front` gives of them all.

    A trial that another one dominates by its values as they are never comes back, so that a newcomer is
    compared with the undominated alone.

    Args:
        objectives: The study's objectives.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._undominated: dict[int, TrialRecord] = {}
        self._front: list[TrialRecord] = []
        self._losses = self._to_losses(())

    @property
    def records(self) -> list[TrialRecord]:
        """The trials on the front, marked, sorted by macs and then by number."""
        return list(self._front)

    def __contains__(self, number: object) -> bool:
        """Return whether the trial of a number is on the front."""
        return any(record.number == number for record in self._front)

    @property
    def undominated(self) -> list[TrialRecord]:
        """The trials of `find_undominated`: whose values make the hypervolume, and whose models are kept."""
        return list(self._undominated.values())

    def add_(self, records: Sequence[TrialRecord]) -> list[int]:
        """Take trials that ended.

        Args:
            records: Trials of any state; only complete, acceptable ones with all objectives can be
                on the front.
        Returns:
            Numbers of complete trials that are not, or no longer, undominated: they never come to the front.
        """
        candidates = [*self.undominated, *records]
        self._undominated = find_undominated(candidates, self.objectives)
        self._front = sort_front(mark_front(self.undominated, self.objectives))
        self._losses = self._to_losses(self.undominated)
        return [r.number for r in candidates if r.state == "COMPLETE" and r.number not in self._undominated]

    def grows_by(self, record: TrialRecord) -> bool:
        """Return whether a trial would be undominated by new values; quicker than to add it and look."""
        if not record.is_candidate:
            return False
        losses = self._to_losses((record,))
        return len(losses) > 0 and not (self._losses <= losses).all(axis=1).any()

    def _to_losses(self, records: Sequence[TrialRecord]) -> np.ndarray:
        """Return the losses of records that have all objectives, shape (n_records, n_objectives)."""
        rows = [record.objectives([objective.metric for objective in self.objectives]) for record in records]
        values = np.array([row for row in rows if row is not None], dtype=float)
        shape = (-1, len(self.objectives))
        return to_losses(values.reshape(shape), [objective.direction for objective in self.objectives])
