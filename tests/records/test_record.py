"""Trial records: how Optuna's word and the events' word are joined."""

from __future__ import annotations

import pytest

from dirprune.errors import StudyError
from dirprune.records.events import TrialEvents
from dirprune.records.record import TrialRecord, make_record

EVENTS = TrialEvents(
    attempt="a",
    n_attempts=1,
    curve=((0, {"val_accuracy": 0.1}), (10, {"val_accuracy": 0.2, "train_loss": 1.5})),
    times=(5.0, 6.0),
    pruned={"macs": 7, "parameters": 8, "kept": {}},
    finished={"metrics": {"val_accuracy": 0.3, "test_accuracy": 0.4}},
    failed={"reason": "ValueError: no"},
    started_at=4.0,
    wall_time_s=2.5,
)


def make(**changes: object) -> TrialRecord:
    fields: dict = {"number": 3, "state": "COMPLETE", "source": "sampler", "architecture": {"conv1": 2}}
    return make_record(EVENTS, **{**fields, "method": "random", **changes})


def test_final_metrics_take_the_place_of_the_last_report_and_of_known_ones() -> None:
    record = make(metrics={"macs": 6.0, "latency_ms": 1.0})
    assert record.metrics == {
        "macs": 7.0,
        "parameters": 8.0,
        "latency_ms": 1.0,
        "val_accuracy": 0.3,
        "train_loss": 1.5,
        "test_accuracy": 0.4,
        "wall_time_s": 2.5,
    }
    assert record.curve == EVENTS.curve
    assert record.last_images == 10


def test_reason_of_a_failure_comes_from_the_events_unless_given() -> None:
    assert make().reason is None
    assert make(state="FAIL").reason == "ValueError: no"
    assert make(state="FAIL", reason="abandoned").reason == "abandoned"


def test_objectives_are_none_when_one_is_missing_or_not_finite() -> None:
    record = make()
    assert record.objectives(["val_accuracy", "macs"]) == (0.3, 7.0)
    assert record.objectives(["val_accuracy", "latency_ms"]) is None
    assert make(metrics={"latency_ms": float("nan")}).objectives(["latency_ms"]) is None


def test_unknown_state_is_refused() -> None:
    with pytest.raises(StudyError, match="unknown trial state 'DONE'; known: COMPLETE"):
        make(state="DONE")
