"""Events: what counts when lines are torn, attempts are lost and lost attempts go on talking."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.errors import StudyError
from dirprune.records.events import EventLog, read_events, replay


def event(attempt: str, kind: str, time: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"schema": 1, "attempt": attempt, "event": kind, "time": time, **fields}


def report(attempt: str, images: int, time: float = 0.0, value: float = 0.5) -> dict[str, Any]:
    return event(attempt, "report", time, images=images, metrics={"val_accuracy": value})


def write_trial(path: Path) -> None:
    log = EventLog(path, "a")
    log.append("started", resumed_from=None)
    log.append("scored", method="magnitude", cached=False, seconds=0.1)
    log.append("pruned", macs=10, parameters=20, kept={"conv1": [0, 1]})
    log.append("report", images=0, metrics={"val_accuracy": 0.25})
    log.append("report", images=100, metrics={"val_accuracy": 0.5})
    log.append("finished", metrics={"val_accuracy": 0.5, "test_accuracy": 0.75})


def test_what_was_appended_is_replayed(tmp_path: Path) -> None:
    write_trial(tmp_path / "events" / "0.jsonl")
    trial = replay(read_events(tmp_path / "events" / "0.jsonl"))
    assert trial.attempt == "a"
    assert trial.n_attempts == 1
    assert trial.curve == ((0, {"val_accuracy": 0.25}), (100, {"val_accuracy": 0.5}))
    assert len(trial.times) == 2
    assert trial.last_images == 100
    assert trial.scored == {"method": "magnitude", "cached": False, "seconds": 0.1}
    assert trial.pruned == {"macs": 10, "parameters": 20, "kept": {"conv1": [0, 1]}}
    assert trial.finished == {"metrics": {"val_accuracy": 0.5, "test_accuracy": 0.75}}
    assert trial.stopped is None
    assert trial.failed is None


def test_no_file_is_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "0.jsonl") == []
    assert replay([]).attempt is None
    assert replay([]).wall_time_s == 0.0


def test_file_cut_at_any_byte_is_read_and_goes_on(tmp_path: Path) -> None:
    path, cut = tmp_path / "0.jsonl", tmp_path / "cut.jsonl"
    write_trial(path)
    whole, events = path.read_bytes(), read_events(path)
    for n_bytes in range(len(whole) + 1):
        cut.write_bytes(whole[:n_bytes])
        kept = read_events(cut)
        assert kept == events[: len(kept)]
        replay(kept)
        EventLog(cut, "b").append("started", resumed_from=None)
        healed = read_events(cut)
        assert healed[:-1] == kept
        assert replay(healed).attempt == "b"


def test_line_in_the_middle_that_is_not_json_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    first, last = json.dumps(event("a", "started")), json.dumps(report("a", 5))
    path.write_bytes(first.encode() + b'\n{"schema": 1, "att\n\xff\xfe\n[1]\n' + last.encode() + b"\n")
    assert [line["event"] for line in read_events(path)] == ["started", "report"]


def test_events_of_a_newer_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_text(json.dumps({**event("a", "started"), "schema": 2}) + "\n")
    with pytest.raises(StudyError, match="expected events of schema 1, got 2"):
        read_events(path)


def test_numbers_that_are_not_finite_stay_json_and_come_back(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "0.jsonl", "a")
    log.append("started", resumed_from=None)
    log.append("report", images=1, metrics={"a": math.nan, "b": math.inf, "c": np.float32(-math.inf)})

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for line in (tmp_path / "0.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)
    metrics = replay(read_events(tmp_path / "0.jsonl")).curve[0][1]
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (math.inf, -math.inf)


def test_unknown_event_and_taken_field_are_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "0.jsonl", "a")
    with pytest.raises(StudyError, match="unknown event 'begun'; known: started"):
        log.append("begun")
    with pytest.raises(StudyError, match="may not be called schema"):
        log.append("report", schema=3)
    with pytest.raises(StudyError, match="attempt needs an id"):
        EventLog(tmp_path / "0.jsonl", "")
    assert not (tmp_path / "0.jsonl").exists()


def test_attempt_that_resumed_takes_the_place_of_later_reports() -> None:
    events = [
        event("a", "started", 0.0),
        event("a", "pruned", 1.0, macs=3),
        *(report("a", images, 2.0, value=0.1) for images in (0, 100, 200)),
        event("b", "started", 10.0, resumed_from=100),
        report("b", 150, 14.0, value=0.9),
    ]
    trial = replay(events)
    assert [images for images, _ in trial.curve] == [0, 100, 150]
    assert trial.pruned == {"macs": 3}
    assert trial.n_attempts == 2
    assert trial.wall_time_s == 6.0
    assert replay(events[:-1]).last_images == 100


def test_attempt_from_the_beginning_leaves_nothing_of_the_earlier_one() -> None:
    events = [event("a", "started"), event("a", "pruned", macs=3), report("a", 0), event("b", "started")]
    trial = replay(events)
    assert trial.curve == ()
    assert trial.pruned is None
    assert trial.last_images == 0


def test_report_after_an_ending_is_refused_and_a_new_attempt_reopens() -> None:
    events = [event("a", "started"), report("a", 5), event("a", "stopped", images=5), report("a", 9)]
    assert replay(events).last_images == 5
    assert replay(events).stopped == {"images": 5}
    again = replay([*events, event("b", "started", resumed_from=5)])
    assert again.stopped is None
    assert again.last_images == 5


@st.composite
def trials_with_late_lines(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw the events of two attempts, and the same with late lines of the first after the second's start."""
    images = st.integers(0, 10)
    kinds = st.sampled_from(
        ["report", "report", "scored", "pruned", "finished", "stopped", "failed", "started"]
    )

    def line(attempt: str, kind: str) -> dict[str, Any]:
        fields: dict[str, Any] = {"images": draw(images), "metrics": {"m": draw(st.floats(0, 1))}}
        return event(attempt, kind, draw(st.floats(0, 100)), **(fields if kind != "started" else {}))

    first = [line("a", "started"), *(line("a", kind) for kind in draw(st.lists(kinds, max_size=6)))]
    start = event("b", "started", 50.0, resumed_from=draw(st.none() | images))
    second = [line("b", kind) for kind in draw(st.lists(kinds, max_size=6))]
    late = [line("a", kind) for kind in draw(st.lists(kinds, min_size=1, max_size=6))]
    mixed = list(second)
    for place in draw(st.lists(st.integers(0, len(second)), min_size=len(late), max_size=len(late))):
        mixed.insert(place, late.pop())
    return [*first, start, *second], [*first, start, *mixed]


@given(trials_with_late_lines())
def test_late_lines_of_an_old_attempt_change_nothing(
    histories: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    clean, with_late_lines = histories
    assert replay(with_late_lines) == replay(clean)
