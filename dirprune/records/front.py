"""Which of a study's trials are on its Pareto front."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dirprune.pareto import front_mask, to_losses
from dirprune.records.record import TrialRecord
from dirprune.study.objectives import Objective


def mark_front(records: Sequence[TrialRecord], objectives: Sequence[Objective]) -> list[TrialRecord]:
    """Return the records with `is_front` set, in their order.

    Only complete, acceptable trials with a finite value for each objective can be on the front. Of trials
    with the same values only the one with the lowest number is: the others add nothing to choose from.
    """
    metrics = [objective.metric for objective in objectives]
    candidates: dict[tuple[float, ...], int] = {}  # objective values -> trial number
    for record in sorted(records, key=lambda record: record.number):
        values = record.objectives(metrics)
        if record.state == "COMPLETE" and record.is_acceptable and values is not None:
            candidates.setdefault(values, record.number)
    front: set[int] = set()
    if candidates:
        losses = to_losses(np.array(list(candidates)), [objective.direction for objective in objectives])
        is_front = front_mask(losses)
        front = {number for number, on in zip(candidates.values(), is_front, strict=True) if on}
    return [
        record if record.is_front == (record.number in front) else record.on_front(record.number in front)
        for record in records
    ]


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

    A trial that has left the front never comes back, so that a newcomer is compared with the front alone.

    Args:
        objectives: The study's objectives.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._front: dict[int, TrialRecord] = {}
        self._losses = self._to_losses(())

    @property
    def records(self) -> list[TrialRecord]:
        """The trials on the front, marked, sorted by macs and then by number."""
        return sort_front(list(self._front.values()))

    def __contains__(self, number: object) -> bool:
        """Return whether the trial of a number is on the front."""
        return number in self._front

    def add_(self, records: Sequence[TrialRecord]) -> list[int]:
        """Take trials that ended.

        Args:
            records: Trials of any state; only complete, acceptable ones with all objectives can be
                on the front.
        Returns:
            Numbers of complete trials that are not, or no longer, on the front.
        """
        candidates = [*self._front.values(), *records]
        marked = mark_front(candidates, self.objectives)
        self._front = {record.number: record for record in marked if record.is_front}
        self._losses = self._to_losses(tuple(self._front.values()))
        return [r.number for r in marked if r.state == "COMPLETE" and not r.is_front]

    def grows_by(self, record: TrialRecord) -> bool:
        """Return whether a trial would add values to the front; quicker than to add it and look."""
        if record.state != "COMPLETE" or not record.is_acceptable:
            return False
        losses = self._to_losses((record,))
        return len(losses) > 0 and not (self._losses <= losses).all(axis=1).any()

    def _to_losses(self, records: Sequence[TrialRecord]) -> np.ndarray:
        """Return the losses of records that have all objectives, shape (n_records, n_objectives)."""
        rows = [record.objectives([objective.metric for objective in self.objectives]) for record in records]
        values = np.array([row for row in rows if row is not None], dtype=float)
        shape = (-1, len(self.objectives))
        return to_losses(values.reshape(shape), [objective.direction for objective in self.objectives])
