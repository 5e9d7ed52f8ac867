"""A user's own regression as a study on a real Ray, with trials that raise, diverge and lose their worker."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from dirprune.records.ending import read_ending
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import load_front
from dirprune.tuning import storage
from dirprune.tuning.execution import MAX_LOST_WORKERS
from tests.integration.toy_study import Toy

SCRIPT = Path(__file__).with_name("toy_study.py")
FREE_BYTES, TAKEN_BYTES = 9 << 30, 12 << 30  # two studies' processes, one of another test, need some 5 GiB


def run_script(
    root: Path, *arguments: str, status: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the study with trouble, its notes and its output in `root`."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--output", root / "out", "--no-tracking", *arguments],
        env={**os.environ, "TOY_TROUBLE": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> StudyFolder:
    """Run the study once."""
    root = tmp_path_factory.mktemp("own")
    said = run_script(root).stdout
    assert "Pareto front" in said
    assert "\n  1  ValueError: no room for twelve channels (trial 1)\n" in said
    return StudyFolder(root / "out" / "toy")


@pytest.fixture(scope="module")
def records(folder):
    return storage.read_records(folder)


def test_every_trial_is_accounted_for_once_and_none_is_left_running(records):
    assert [record.number for record in records] == list(range(8))
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED", "FAIL"}


def test_trial_that_raises_fails_with_its_reason_and_is_not_tried_again(folder, records):
    failed = records[1]
    assert failed.state == "FAIL"
    assert failed.reason == "ValueError: no room for twelve channels"
    assert replay(read_events(folder.events(1))).n_attempts == 1


def test_trial_that_diverges_fails_and_is_no_value(records):
    assert records[2].state == "FAIL"
    assert "not finite" in records[2].reason


def test_trial_whose_worker_is_killed_goes_on_as_the_same_trial(folder, records):
    assert records[3].state in ("COMPLETE", "PRUNED")
    events = replay(read_events(folder.events(3)))
    assert events.n_attempts == 2
    assert events.curve[0][0] == 0


def test_objectives_of_a_regression_are_minimised(records):
    complete = [record for record in records if record.state == "COMPLETE"]
    assert complete[0].source == "dense"
    assert all({"val_mae", "val_r2", "test_mae", "parameters"} <= set(record.metrics) for record in complete)
    front = [(r.metrics["val_mae"], r.metrics["parameters"]) for r in complete]
    best = min(front)
    assert all(best <= other for other in front)


def test_tables_name_the_objectives_and_agree_with_the_storage(folder, records):
    with folder.trials_csv.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["trial"]), row["state"]) for row in rows] == [(r.number, r.state) for r in records]
    with folder.front_csv.open(newline="") as file:
        front = list(csv.DictReader(file))
    assert {"trial", "source", "val_mae", "test_mae", "macs", "parameters", "method"} <= set(front[0])


def test_model_of_the_front_is_loaded_with_the_users_own_network(folder):
    point = load_front(folder)[0]
    network = point.load_model(Toy)
    assert sum(p.numel() for p in network.parameters()) == point.metrics["parameters"]
    assert network(torch.zeros(3, 6)).shape == (3, 2)


def test_stopped_trials_say_so_in_their_events(folder, records):
    for record in records:
        events = replay(read_events(folder.events(record.number)))
        assert (events.stopped is not None) == (record.state == "PRUNED")


def test_settled_trials_leave_no_checkpoint(folder):
    assert not list(folder.checkpoints_dir.glob("*"))


@pytest.mark.slow
def test_study_whose_pruned_trials_all_fail_says_why_leaves_with_status_2_and_goes_on(tmp_path):
    first = run_script(tmp_path, "--trials", "3", status=2)
    reason = (
        "no pruned trial has finished: all 2 trials failed, 1 of them with: ValueError: no room for twelve"
    )
    assert "\n2 of 3 trials failed:\n" in first.stdout
    assert first.stderr.splitlines()[-1].startswith(f"error: {reason}")
    folder = StudyFolder(tmp_path / "out" / "toy")
    assert read_ending(folder).startswith(reason)
    assert [record.state for record in storage.read_records(folder)] == ["COMPLETE", "FAIL", "FAIL"]
    run_script(tmp_path, "--trials", "4", "--resume")
    assert read_ending(folder) == ""


@pytest.mark.slow
def test_trial_that_loses_its_worker_three_times_fails_and_the_study_goes_on(tmp_path):
    run_script(tmp_path, "--trials", "5", "--halving", "none", TOY_DEATHS="9")
    records = storage.read_records(StudyFolder(tmp_path / "out" / "toy"))
    assert [record.state for record in records[1:4]] == ["FAIL", "FAIL", "FAIL"]
    assert "its worker was lost too often" in records[3].reason
    assert len(list(tmp_path.glob("death-*"))) == 3
    assert records[4].state == "COMPLETE"


@pytest.mark.slow
def test_trial_whose_workers_are_told_to_end_goes_on_each_time_from_where_it_was(tmp_path):
    n_told = MAX_LOST_WORKERS + 1  # as many losses as fail a trial
    run_script(tmp_path, "--trials", "5", TOY_DEATHS=str(n_told), TOY_SIGNAL="SIGTERM")
    assert len(list(tmp_path.glob("death-*"))) == n_told
    folder = StudyFolder(tmp_path / "out" / "toy")
    record = storage.read_records(folder)[3]
    assert record.state == "COMPLETE", record.reason
    events = read_events(folder.events(3))
    resumed = [event["resumed_from"] for event in events if event["event"] == "started"]
    assert len(resumed) == n_told + 1
    assert resumed[0] is None
    assert resumed[1:] == sorted(set(resumed[1:]))  # each got a step further
    assert resumed[1] > 0


@pytest.mark.slow
def test_trial_that_ray_kills_as_its_machine_runs_out_of_memory_goes_on(tmp_path):
    memory = psutil.virtual_memory()
    most = memory.total - memory.available + FREE_BYTES
    run_script(
        tmp_path,
        "--trials",
        "5",
        TOY_BYTES=str(TAKEN_BYTES),
        RAY_memory_usage_threshold=str(most / memory.total),
        RAY_memory_monitor_refresh_ms="100",
    )
    folder = StudyFolder(tmp_path / "out" / "toy")
    record = storage.read_records(folder)[3]
    assert record.state in ("COMPLETE", "PRUNED"), record.reason
    assert replay(read_events(folder.events(3))).n_attempts == 2
