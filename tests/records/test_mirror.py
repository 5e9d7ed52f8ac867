"""A study's files in a storage: machines that share nothing else go on with each other's trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirprune.records.events import EventLog, read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.mirror import fetch, fetch_events, remove, send, send_events
from dirprune.remote import RemoteFolder


@pytest.fixture
def machines(tmp_path: Path) -> list[StudyFolder]:
    remote = RemoteFolder(str(tmp_path / "storage"))
    return [StudyFolder(tmp_path / name / "study", remote) for name in ("driver", "first", "second")]


def open_log(machine: StudyFolder, attempt: str) -> EventLog:
    fetch_events(machine, 3)
    return EventLog(machine.events(3), attempt, lambda: send_events(machine, 3, attempt))


def test_late_lines_of_a_lost_attempt_are_refused_by_everyone(machines: list[StudyFolder]) -> None:
    driver, first, second = machines
    old = open_log(first, "old")
    old.append("started", resumed_from=None)
    old.append("report", images=10, metrics={"a": 1.0})
    old.append("report", images=20, metrics={"a": 2.0})
    new = open_log(second, "new")
    new.append("started", resumed_from=10)
    old.append("report", images=30, metrics={"a": 3.0})
    old.append("finished", metrics={"a": 3.0})
    new.append("report", images=20, metrics={"a": 2.5})
    for machine in machines:
        fetch_events(machine, 3)
        events = replay(read_events(machine.events(3)))
        assert events.attempt == "new"
        assert events.curve == ((10, {"a": 1.0}), (20, {"a": 2.5}))
        assert events.finished is None
    old.append("report", images=40, metrics={"a": 4.0})  # also after it has seen the new one's lines
    fetch_events(driver, 3)
    assert [event["attempt"] for event in read_events(driver.events(3))].count("old") == 6
    assert replay(read_events(driver.events(3))).curve == ((10, {"a": 1.0}), (20, {"a": 2.5}))


def test_what_is_said_in_an_attempts_name_stays_said(machines: list[StudyFolder]) -> None:
    driver, first, _ = machines
    open_log(first, "one").append("started", resumed_from=None)
    fetch_events(driver, 3)
    EventLog(driver.events(3), "one").append("stopped", images=0)
    send_events(driver, 3, "one")
    fetch_events(driver, 3)
    assert replay(read_events(driver.events(3))).stopped == {"images": 0}


def test_folders_travel_and_are_removed_on_both_sides(machines: list[StudyFolder]) -> None:
    driver, first, second = machines
    made = first.model_dir(1)
    made.mkdir(parents=True)
    (made / "architecture.json").write_text("whole")
    (made / "model.safetensors").write_bytes(b"weights")
    send(first, made)
    for machine in (driver, second):
        fetch(machine, machine.model_dir(1))
        assert (machine.model_dir(1) / "architecture.json").read_text() == "whole"
        assert (machine.model_dir(1) / "model.safetensors").read_bytes() == b"weights"
    remove(driver, driver.model_dir(1))
    assert not driver.model_dir(1).exists()
    assert driver.remote is not None
    assert driver.remote.list("models") == []
    fetch(driver, driver.checkpoint_dir(7))
    assert not driver.checkpoint_dir(7).exists(), "what nobody sent is not there"


def test_a_finalist_has_its_own_part_of_the_storage(machines: list[StudyFolder]) -> None:
    driver, first, _ = machines
    own = first.finalist(4, 0)
    own.checkpoint_dir(4).mkdir(parents=True)
    (own.checkpoint_dir(4) / "state.pt").write_bytes(b"state")
    send(own, own.checkpoint_dir(4) / "state.pt")
    assert first.remote is not None
    assert first.remote.list() == ["finalists/4-0/checkpoints/4/state.pt"]
    home = driver.finalist(4, 0)
    fetch(home, home.checkpoint_dir(4))
    assert (home.checkpoint_dir(4) / "state.pt").read_bytes() == b"state"


def test_without_a_storage_nothing_happens(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "study")
    send(folder, folder.model_dir(1))
    fetch(folder, folder.model_dir(1))
    fetch_events(folder, 1)
    send_events(folder, 1, "one")
    assert list(tmp_path.iterdir()) == []
