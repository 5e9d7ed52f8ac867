"""The views of a running study: there within seconds, complete at the end, and a small part of the time."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dirprune.records import views
from dirprune.records.events import EventLog
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.latency import MEASURED, write_table
from dirprune.records.views import ViewWriter
from dirprune.study.observer import StudySummary
from tests.records.example_study import N_CHANNELS, OBJECTIVES, make_study


class Clock:
    """Time that passes when told to, and while tables or pictures are written."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spent = {"tables": 0.0, "views": 0.0}

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    write_tables = views.write_tables

    def slow_tables(folder, records, objectives):
        write_tables(folder, records, objectives)
        clock.now += 0.5
        clock.spent["tables"] += 0.5

    def slow_views(summary, records):
        write_tables(summary.folder, records, summary.objectives)
        clock.now += 5.0
        clock.spent["views"] += 5.0

    monkeypatch.setattr(views, "write_tables", slow_tables)
    monkeypatch.setattr(views, "write_views", slow_views)
    return clock


def make_writer(clock: Clock, root: Path) -> ViewWriter:
    writer = ViewWriter(clock)
    writer.study_started(
        StudySummary("lenet", "1", StudyFolder(root), OBJECTIVES, {}, {}, N_CHANNELS, n_trials=60, seed=0)
    )
    return writer


def read(root: Path) -> list[tuple[int, str, str]]:
    path = StudyFolder(root).trials_csv
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [(int(row["trial"]), row["state"], row["is_front"]) for row in csv.DictReader(file)]


def expect(records) -> list[tuple[int, str, str]]:
    return [(r.number, r.state, str(int(r.is_front))) for r in mark_front(records, OBJECTIVES)]


def test_first_finished_trial_is_in_the_tables_at_once(tmp_path, clock):
    writer, records = make_writer(clock, tmp_path), make_study()
    writer.trial_changed(records[0])
    assert read(tmp_path) == []
    writer.front_changed([], 0.0, {})
    assert read(tmp_path) == expect(records[:1])


def test_change_that_came_too_soon_is_written_with_a_later_one(tmp_path, clock):
    writer, records = make_writer(clock, tmp_path), make_study()
    writer.trial_changed(records[0])
    writer.front_changed([], 0.0, {})
    writer.trial_changed(records[1])
    assert len(read(tmp_path)) == 1
    clock.now += views.SHARE * 0.5
    writer.trial_changed(records[3])
    assert read(tmp_path) == expect([records[0], records[1], records[3]])


def test_resumed_study_is_not_written_before_all_its_trials_are_told(tmp_path, clock):
    writer, records = make_writer(clock, tmp_path), make_study()
    for record in records:
        writer.trial_changed(record)
        clock.now += 10.0
    assert read(tmp_path) == []
    writer.front_changed([], 0.0, {})
    assert read(tmp_path) == expect(records)


def test_writing_takes_a_small_part_of_the_time_however_many_changes_come(tmp_path, clock):
    writer, records = make_writer(clock, tmp_path), make_study()
    for _ in range(4000):
        clock.now += 0.25
        writer.trial_changed(records[0])
        writer.front_changed([], 0.0, {})
    assert clock.spent["tables"] > 0
    assert clock.spent["views"] > 0
    assert sum(clock.spent.values()) < clock.now / 15


def test_end_writes_everything_however_soon_it_comes(tmp_path, clock):
    writer, records = make_writer(clock, tmp_path), make_study()
    writer.trial_changed(records[0])
    writer.front_changed([], 0.0, {})
    writer.study_ended(mark_front(records, OBJECTIVES), interrupted=False)
    assert read(tmp_path) == expect(records)


def test_what_was_measured_stays_in_the_tables_of_both_fronts_when_they_are_drawn_again(tmp_path):
    folder, trial = StudyFolder(tmp_path), make_study()[1]
    log = EventLog(folder.finalist(trial.number, 0).events(trial.number), "a")
    log.append("started", resumed_from=None)
    log.append("finished", metrics=trial.metrics)
    columns = ["trial", "latency_ms", "low_ms", "high_ms"]
    write_table(folder.latency_csv, columns, [[str(trial.number), "2", "1.5", "2.5"]])
    costs, reference = {"macs": 498_750.0}, {"val_accuracy": 0.1, "macs": 498_750.0}
    summary = StudySummary("lenet", "1", folder, OBJECTIVES, reference, costs, N_CHANNELS, 1, seed=0)
    views.write_views(summary, mark_front([trial], OBJECTIVES))
    for table in (folder.front_csv, folder.final_front_csv, folder.finalists_csv):
        with table.open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert [row[name] for name in MEASURED] == ["2", "1.5", "2.5", ""], table.name
        assert row["measured_on"] == "", "a table of an earlier version does not tell"
