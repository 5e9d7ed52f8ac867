"""Which of a study's trials are on its Pareto front."""

from __future__ import annotations

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

    Only complete, acceptable trials with a finite value for each objective count. Of trials with the same
    values only the one with the lowest number does: the others add nothing to choose from.
    """
    metrics = [objective.metric for objective in objectives]
    candidates: dict[tuple[float, ...], TrialRecord] = {}  # by the objectives' values
    for record in sorted(records, key=lambda record: record.number):
        values = record.objectives(metrics)
        if record.is_candidate and values is not None:
            candidates.setdefault(values, record)
    if not candidates:
        return {}
    losses = to_losses(np.array(list(candidates)), [objective.direction for objective in objectives])
    kept = zip(candidates.values(), front_mask(losses), strict=True)
    return {record.number: record for record, is_kept in kept if is_kept}


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


MEMBERS = ("best", "smallest", "knee")
"""Members of a front that go by a name; see `find_member`."""


def find_member(front: Sequence[TrialRecord], objectives: Sequence[Objective], which: str) -> TrialRecord:
    """Return a member of a front by its name.

    Args:
        front: Trials on the front, at least one.
        objectives: What the study trades.
        which: "best": first in the first objective of validation (without one, in the first); "smallest":
            with the fewest MACs; "knee": with the least sum of losses, each scaled from 0 to 1 over the
            front, which for two objectives is the point farthest below the line between the front's ends.

    Returns:
        The member; of equals the one with the lowest number.
    """
    ordered = sorted(front, key=lambda record: record.number)
    metrics = [objective.metric for objective in objectives]
    values = np.array([[record.metrics[metric] for metric in metrics] for record in ordered])
    losses = to_losses(values, [objective.direction for objective in objectives])
    if which == "smallest":
        keys = np.array([record.metrics["macs"] for record in ordered])
    elif which == "best":
        judged = [place for place, metric in enumerate(metrics) if metric.startswith("val_")]
        keys = losses[:, judged[0] if judged else 0]
    else:
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
