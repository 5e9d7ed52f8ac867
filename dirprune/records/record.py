"""One trial as tables, pictures and trackers see it: state from Optuna, everything else from its events."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from dirprune.cost import COST_METRICS, LATENCY
from dirprune.errors import StudyError
from dirprune.records.events import TrialEvents

State = Literal["COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"]
ABANDONED = "abandoned"
"""The reason of a trial that somebody gave up."""


@dataclass(frozen=True)
class TrialRecord:
    """What is known of one trial.

    Attributes:
        number: The trial's number in its study, from 0.
        state: The state by Optuna's name; PRUNED is a trial that was stopped at a rung.
        source: Where its configuration comes from: dense, uniform, reference, warm-start or sampler.
        architecture: Kept channels per channel group, in forward order.
        method: Name of the importance method; empty for the dense network.
        options: The method's options and the hyperparameters of fine-tuning, flat.
        metrics: Last known value of each metric; macs, parameters and wall_time_s (in s) among them.
        curve: (training images seen, metrics) of each report, by images.
        times: Unix time in s of each report in `curve`; empty if unknown.
        started_at: Unix time in s at which the trial started; None if it has not or it is unknown.
        ended_at: Unix time in s at which its driver took note of its end; None if unknown.
        is_paused: Whether it is RUNNING only by name: halted at a rung, it may be asked to go on.
        reason: Why the trial failed, was stopped, is paused or is not acceptable; None otherwise.
        is_acceptable: Whether it may be on the front; a complete one below the least accuracy may not, nor
            one above a limit of cost.
        unreadable: Images that it was the first on its worker to leave out, each with the reason.
        is_front: Whether the trial is on the study's Pareto front.
    """

    number: int
    state: State
    source: str
    architecture: dict[str, int]
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curve: tuple[tuple[int, dict[str, float]], ...] = ()
    reason: str | None = None
    is_front: bool = False
    times: tuple[float, ...] = ()
    started_at: float | None = None
    ended_at: float | None = None
    is_paused: bool = False
    is_acceptable: bool = True
    unreadable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in get_args(State):
            raise StudyError(f"unknown trial state {self.state!r}; known: {', '.join(get_args(State))}")

    @property
    def counted_state(self) -> str:
        """The state by which people count it: PAUSED where it is RUNNING only by name."""
        return "PAUSED" if self.is_paused else self.state

    @property
    def is_halted(self) -> bool:
        """Whether the trial came to a rung and, so far, not beyond it: it was stopped or is paused."""
        return self.state == "PRUNED" or self.is_paused

    @property
    def is_abandoned(self) -> bool:
        """Whether the trial counts as failed because somebody gave it up."""
        return self.state == "FAIL" and self.reason == ABANDONED

    @property
    def is_candidate(self) -> bool:
        """Whether the trial may be on a front: it ran to its end and is acceptable."""
        return self.state == "COMPLETE" and self.is_acceptable

    @property
    def last_images(self) -> int:
        """Training images seen at the last report; 0 before the first."""
        return self.curve[-1][0] if self.curve else 0

    @property
    def last_time(self) -> float:
        """Unix time in s at which the trial ended, or the last that is known of it; 0 if none is."""
        return self.ended_at or (self.times[-1] if self.times else self.started_at or 0.0)

    def objectives(self, metrics: Sequence[str]) -> tuple[float, ...] | None:
        """Return the values of `metrics`, or None if one of them is missing or not finite."""
        values = tuple(self.metrics.get(metric, math.nan) for metric in metrics)
        return values if all(map(math.isfinite, values)) else None

    def on_front(self, is_front: bool) -> TrialRecord:
        """Return this record with `is_front` set."""
        return replace(self, is_front=is_front)


def make_record(
    events: TrialEvents,
    *,
    number: int,
    state: State,
    source: str,
    architecture: Mapping[str, int],
    method: str,
    options: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    reason: str | None = None,
) -> TrialRecord:
    """Join what Optuna's storage says of a trial with what the trial said itself.

    Args:
        events: The trial's replayed events.
        metrics: Values known without the trial, such as the costs of its architecture; the trial's
            own values take their place.
        reason: Why it failed; the events' own reason by default.
    """
    known = dict(metrics or {})
    if events.pruned is not None:
        costs = (*COST_METRICS, LATENCY)
        known |= {name: float(events.pruned[name]) for name in costs if name in events.pruned}
    if events.curve:
        known |= events.curve[-1][1]
    if events.finished is not None:
        known |= events.finished.get("metrics", {})
    if events.started_at is not None:
        known["wall_time_s"] = events.wall_time_s
    if reason is None and state == "FAIL" and events.failed is not None:
        reason = str(events.failed.get("reason", "")) or None
    return TrialRecord(
        number=number,
        state=state,
        source=source,
        architecture=dict(architecture),
        method=method,
        options=dict(options or {}),
        metrics=known,
        curve=events.curve,
        times=events.times,
        started_at=events.started_at,
        reason=reason,
        unreadable=events.unreadable,
    )
