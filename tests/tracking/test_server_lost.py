"""A real MLflow server that is killed in mid-study: the study goes on, and nothing is lost or doubled."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dirprune.records.front import mark_front
from dirprune.study.observer import StudySummary
from dirprune.tracking import MlflowTracker, check_server, names
from tests.records.example_study import OBJECTIVES, make_trial
from tests.tracking.mlflow_process import SERVER_STORE, MlflowServer, run_server

pytestmark = pytest.mark.slow
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"

RECORDS = mark_front([make_trial(n, "sampler", 0.9 - n / 10, 0.99 - n / 100) for n in range(6)], OBJECTIVES)


def wait_for_quiet(tracker: MlflowTracker) -> None:
    deadline = time.monotonic() + 60
    while tracker._has_work() and time.monotonic() < deadline:
        time.sleep(0.05)


def tell(tracker: MlflowTracker, number: int) -> float:
    """Tell of a trial as a driver does; return for how many seconds the driver was held up."""
    began = time.monotonic()
    record = RECORDS[number]
    for n_seen in range(len(record.curve)):
        seen = replace(record, state="RUNNING", curve=record.curve[:n_seen], times=record.times[:n_seen])
        tracker.trial_changed(seen)
    tracker.trial_changed(record)
    tracker.front_changed(RECORDS[: number + 1], 0.1 * number, {"COMPLETE": number + 1})
    return time.monotonic() - began


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[MlflowServer]:
    """A running server whose store has been set up already."""
    shutil.copy(empty_store, tmp_path / SERVER_STORE)
    with run_server(tmp_path) as running:
        yield running


@pytest.mark.usefixtures("output")
def test_study_goes_on_without_its_server_and_is_complete_when_it_returns(
    summary: StudySummary,
    server: MlflowServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("dirprune.tracking.uploader.log_model", lambda *arguments: None)
    summary.folder.root.mkdir(parents=True)
    summary.folder.front_csv.write_text("trial\n0\n")
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        check_server(server.uri)
        tracker = MlflowTracker(server.uri, interval_s=0.1)
        tracker.study_started(summary)
        tell(tracker, 0)
        tell(tracker, 1)
        wait_for_quiet(tracker)
        server.kill()
        assert max(tell(tracker, number) for number in (2, 3, 4)) < 0.5
        deadline = time.monotonic() + 60
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)  # in which it is tried again
        (away,) = [record.message for record in caplog.records]
        sync = f"dirprune sync {summary.folder.root} --tracking-uri {server.uri}"
        assert re.fullmatch(
            rf"MLflow at {server.uri} has not answered since {TIME} \([\w ]+\); the study goes on "
            "and nothing is lost: its own records keep all, and it is sent when MLflow is back, or by "
            f"{sync}",
            away,
        )
        server.start()
        tell(tracker, 5)
        tracker.study_ended(RECORDS, False)
        assert tracker.close(timeout=120) == []
        back = rf"MLflow at {server.uri} is back since {TIME}; what it lacked has been sent"
        assert re.fullmatch(back, caplog.records[-1].message)
        assert len(caplog.records) == 2
        client = MlflowClient(server.uri)
        experiment = client.get_experiment_by_name(names.EXPERIMENT)
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id])
        studies = [run for run in runs if run.data.tags[names.KIND] == "study"]
        trials = {int(run.data.tags[names.TRIAL]): run for run in runs if names.TRIAL in run.data.tags}
        assert (len(studies), len(runs)) == (1, 7)
        assert {run.info.status for run in runs} == {"FINISHED"}
        assert [file.path for file in client.list_artifacts(studies[0].info.run_id)] == ["front.csv"]
        for number, run in trials.items():
            history = client.get_metric_history(run.info.run_id, "val_accuracy")
            curve = [(images, metrics["val_accuracy"]) for images, metrics in RECORDS[number].curve]
            assert [(point.step, point.value) for point in history] == curve
        history = client.get_metric_history(studies[0].info.run_id, "hypervolume")
        assert [point.step for point in history] == [1, 2, 3, 4, 5, 6]


def test_server_that_stays_away_is_given_up_in_time_and_told(
    summary: StudySummary, server: MlflowServer
) -> None:
    tracker = MlflowTracker(server.uri, interval_s=0.1)
    tracker.study_started(summary)
    tell(tracker, 0)
    wait_for_quiet(tracker)
    server.kill()
    tell(tracker, 1)
    tracker.study_ended(RECORDS, False)
    began = time.monotonic()
    left = tracker.close(timeout=60)
    assert time.monotonic() - began < 20
    assert left == ["5 trials", "the study's run with its files and models"]
