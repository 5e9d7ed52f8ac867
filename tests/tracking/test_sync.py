"""A study brought to MLflow from its own records: complete, the same twice, and to another server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from mlflow import MlflowClient

from dirprune.errors import TrackingError
from dirprune.records.ending import EndingWriter
from dirprune.records.events import EventLog
from dirprune.records.front import mark_front
from dirprune.records.record import TrialRecord
from dirprune.records.views import write_views
from dirprune.study.objectives import Objective
from dirprune.study.observer import StudyObserver, StudySummary
from dirprune.tracking import MlflowTracker, check_name, default_tracking_uri, names, sync_study
from tests.records.example_study import OBJECTIVES, make_trial
from tests.tracking.everything import read_everything
from tests.tracking.mlflow_process import SERVER_STORE, run_server
from tests.tracking.test_mlflow_tracker import make_records, read_history, read_runs, store_model, track


def with_ends(records: list[TrialRecord]) -> list[TrialRecord]:
    return [replace(record, ended_at=1.7e9 + 10 + record.number) for record in records]


def shape_of(everything: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal in two stores, where ids and the times of requests differ."""
    shape = {}
    for run in everything["runs"].values():
        tags = {
            name: text
            for name, text in run["tags"].items()
            if name not in (names.PARENT, names.MODEL_ID) and not name.startswith("mlflow.")
        }
        metrics = {
            name: [(step, value) for step, _, value in points]
            for name, points in run["metrics"].items()
            if names.TRIAL in tags or name in ("hypervolume", "front_size")
        }
        key = int(tags.get(names.TRIAL, -1))
        shape[key] = (run["info"][:2], tags, run["parameters"], run["latest"], metrics, run["files"])
    return shape


@pytest.mark.slow
def test_rebuilt_study_is_what_a_live_tracker_would_have_left(
    summary: StudySummary, output: Path, tmp_path: Path
) -> None:
    records = with_ends(make_records())
    for number in (0, 1):
        store_model(summary, number)
    write_views(summary, records)
    track(summary, records)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    synced = sync_study(summary, records, other)
    assert (synced.n_trials, synced.n_models, synced.refused) == (5, 2, ())
    live, rebuilt = read_everything(default_tracking_uri(output)), read_everything(other)
    expected = shape_of(live)
    values = rebuilt["runs"].values()
    found = next(run for run in values if names.TRIAL not in run["tags"])["metrics"]["hypervolume"]
    assert [(step, time) for step, time, _ in found] == [
        (1, 1_700_000_010_000),
        (2, 1_700_000_011_000),
        (3, 1_700_000_012_000),
    ]
    assert found[0][2] < found[1][2] == found[2][2]
    for name in ("hypervolume",):  # the driver of this test tells made-up ones
        expected[-1][3][name] = found[-1][2]
        expected[-1][4][name] = [(step, value) for step, _, value in found]
    assert shape_of(rebuilt) == expected
    assert len(rebuilt["models"]) == 2


def test_second_time_changes_nothing(summary: StudySummary, output: Path) -> None:
    records = with_ends(make_records())
    store_model(summary, 0)
    write_views(summary, records)
    uri = default_tracking_uri(output)
    sync_study(summary, records, uri)
    before = read_everything(uri)
    write_views(summary, records)
    sync_study(summary, records, uri)
    assert read_everything(uri) == before
    assert len(before["runs"]) == 6
    study, _ = read_runs(output)
    assert (study.info.start_time, study.info.end_time) == (1_700_000_000_000, 1_700_000_014_000)


@pytest.mark.usefixtures("without_models")
def test_what_a_live_tracker_did_not_come_to_is_added_and_the_rest_stays(
    summary: StudySummary, output: Path
) -> None:
    records = with_ends(make_records())
    half = replace(records[1], state="RUNNING", curve=records[1].curve[:1], times=records[1].times[:1])
    track(replace(summary, n_trials=99), mark_front([records[0], half], OBJECTIVES), interrupted=True)
    study, before = read_runs(output)
    sync_study(replace(summary, n_trials=5), records, default_tracking_uri(output))
    again, after = read_runs(output)
    assert again.info.run_id == study.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.tags[names.N_TRIALS] == "99"
    assert {n: run.info.run_id for n, run in before.items()}.items() <= {
        n: run.info.run_id for n, run in after.items()
    }.items()
    volumes = sorted(read_history(output, again, "hypervolume"))
    assert volumes[0] == (1, 0.25)
    assert [step for step, _ in volumes] == [1, 2, 3]
    assert again.data.metrics["n_running"] == 0.0
    steps = [step for step, _ in read_history(output, after[1], "val_accuracy")]
    assert steps[:3] == [0, 600, 1200]


@pytest.mark.usefixtures("without_models")
def test_finalists_come_with_their_trainings_and_means(summary: StudySummary, output: Path) -> None:
    for seed, accuracy in ((0, 0.90), (1, 0.96)):
        log = EventLog(summary.folder.finalist(1, seed).events(1), "attempt")
        log.append("started", resumed_from=None)
        log.append("report", images=600, metrics={"val_accuracy": 0.5})
        log.append("finished", metrics={"val_accuracy": accuracy, "macs": 100_000.0})
    sync_study(summary, with_ends(make_records()), uri_of(output))
    before = read_everything(uri_of(output))
    runs = before["runs"].values()
    finals = {r["tags"][names.REPETITION]: r for r in runs if names.REPETITION in r["tags"]}
    study = next(run for run in runs if names.TRIAL not in run["tags"])
    assert study["latest"]["final.1.val_accuracy"] == pytest.approx(0.93)
    assert {seed: run["tags"][names.FRONT] for seed, run in finals.items()} == {"0": "false", "1": "true"}
    assert finals["1"]["latest"]["val_accuracy"] == 0.96
    sync_study(summary, with_ends(make_records()), uri_of(output))
    assert read_everything(uri_of(output)) == before


@pytest.mark.usefixtures("without_models")
def test_study_with_unfinished_trials_stays_open(summary: StudySummary, output: Path) -> None:
    running = make_trial(1, "sampler", 0.5, 0.9, state="RUNNING")
    sync_study(summary, mark_front([make_trial(0, "dense", 1.0, 0.99), running], OBJECTIVES), uri_of(output))
    study, trials = read_runs(output)
    assert (study.info.status, study.info.end_time, trials[1].info.status) == ("RUNNING", None, "RUNNING")
    assert study.data.tags[names.PAUSED] == "true"


@pytest.mark.slow
@pytest.mark.usefixtures("without_models")
@pytest.mark.parametrize("state", ["COMPLETE", pytest.param("RUNNING", marks=pytest.mark.slow)])
def test_study_that_ended_by_itself_is_failed_until_it_has_gone_on_without_mlflow(
    summary: StudySummary, output: Path, tmp_path: Path, state: Literal["COMPLETE", "RUNNING"]
) -> None:
    def end_one_run(records: list[TrialRecord], reason: str, *others: StudyObserver) -> None:
        for observer in (EndingWriter(), *others):
            observer.study_started(summary)
            if reason:
                observer.study_failed(reason)
            observer.study_ended(records, interrupted=False)

    dense, last = make_trial(0, "dense", 1.0, 0.99), make_trial(1, "sampler", 0.5, 0.9)
    left = mark_front([dense, replace(last, state=state)], OBJECTIVES)
    tracker, is_paused = MlflowTracker(interval_s=0.05), "true" if state == "RUNNING" else "false"
    end_one_run(left, "no room is left", tracker)
    assert tracker.close(timeout=60) == []
    other = f"sqlite:///{tmp_path / 'other.db'}"
    for uri in (uri_of(output), other):
        sync_study(summary, left, uri)
        assert read_status(uri) == ("FAILED", is_paused)
    end_one_run(mark_front([dense, last], OBJECTIVES), "")
    for uri in (uri_of(output), other):
        sync_study(summary, mark_front([dense, last], OBJECTIVES), uri)
        assert read_status(uri) == ("FINISHED", "false")


def read_status(uri: str) -> tuple[str, str]:
    """Return the status of a study's run, and whether somebody is to go on with it."""
    runs = read_everything(uri)["runs"].values()
    (study,) = [run for run in runs if names.TRIAL not in run["tags"]]
    return study["info"][1], study["tags"][names.PAUSED]


@pytest.mark.usefixtures("without_models")
def test_paused_trials_are_counted_as_such_live_and_afterwards_until_none_is_left(
    summary: StudySummary, output: Path, tmp_path: Path
) -> None:
    other = f"sqlite:///{tmp_path / 'other.db'}"
    dense = make_trial(0, "dense", 1.0, 0.99)
    halted = [make_trial(n, "sampler", 0.1 * n, 0.5, state="RUNNING", is_paused=True) for n in range(1, 6)]
    halted.append(make_trial(6, "sampler", 0.7, 0.9, state="RUNNING"))
    paused = mark_front([dense, *halted], OBJECTIVES)
    track(summary, paused, interrupted=True)
    sync_study(summary, paused, other)
    for uri in (uri_of(output), other):
        assert read_counts(uri) == {"n_complete": 1, "n_stopped": 0, "n_running": 1, "n_paused": 5}
    ended = mark_front([dense, *(replace(t, state="PRUNED", is_paused=False) for t in halted)], OBJECTIVES)
    track(replace(summary, resumed=True), ended)
    sync_study(summary, ended, other)
    for uri in (uri_of(output), other):
        assert read_counts(uri) == {"n_complete": 1, "n_stopped": 6, "n_running": 0, "n_paused": 0}


@pytest.mark.usefixtures("without_models")
def test_records_replace_counts_that_a_lost_driver_told_later(summary: StudySummary, output: Path) -> None:
    dense, running = make_trial(0, "dense", 1.0, 0.99), make_trial(1, "sampler", 0.5, 0.9, state="RUNNING")
    tracker = MlflowTracker(interval_s=0.05)
    tracker.study_started(summary)
    for n_running in (1, 2, 1, 3):
        tracker.front_changed([dense], 0.25, {"COMPLETE": 1, "RUNNING": n_running})
    assert tracker.close(timeout=60) == []
    assert read_counts(uri_of(output))["n_running"] == 3
    for _ in range(2):
        sync_study(summary, mark_front([dense, running], OBJECTIVES), uri_of(output))
        assert read_counts(uri_of(output))["n_running"] == 1


def read_counts(uri: str) -> dict[str, float]:
    """Return how many trials are in each state by a study's run; none of these failed."""
    runs = read_everything(uri)["runs"].values()
    (study,) = [run for run in runs if names.TRIAL not in run["tags"]]
    counts = {name: study["latest"].get(name) for name in names.COUNTS.values() if name != "n_infeasible"}
    assert counts.pop("n_failed") == 0
    return counts


def uri_of(output: Path) -> str:
    return default_tracking_uri(output)


@pytest.mark.usefixtures("without_models")
def test_answers_that_are_lost_leave_no_double(
    summary: StudySummary, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = MlflowClient.create_run, iter([True, False, True, False, True])

    def losing(self: MlflowClient, *arguments: object, **keywords: object) -> object:
        run = real(self, *arguments, **keywords)  # type: ignore[arg-type]
        if next(lost, False):
            raise ConnectionError("answer lost")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", losing)
    monkeypatch.setattr("dirprune.tracking.sync.PAUSES_S", (0.01, 0.01, 0.01))
    sync_study(summary, make_records(), uri_of(output))
    assert sorted(read_runs(output)[1]) == [0, 1, 2, 3, 4]


def test_server_that_keeps_failing_is_one_line_without_its_password(
    summary: StudySummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dirprune.tracking.sync.PAUSES_S", ())
    with pytest.raises(TrackingError) as raised:
        sync_study(summary, make_records(), "http://me:hunter2@127.0.0.1:9")
    assert "MLflow at http://127.0.0.1:9 failed" in str(raised.value)
    assert "goes on where this one ended" in str(raised.value)
    assert "hunter2" not in str(raised.value)


@pytest.mark.usefixtures("without_models")
def test_namesake_with_other_objectives_is_refused_and_one_with_the_same_is_not(
    summary: StudySummary, output: Path
) -> None:
    uri = uri_of(output)
    check_name(uri, "lenet", OBJECTIVES, None)
    sync_study(summary, make_records()[:1], uri)
    before = read_everything(uri)
    check_name(uri, "lenet", OBJECTIVES, "0ddba11")
    others = (OBJECTIVES[0], Objective("parameters", "minimize"))
    check_name(uri, "lenet", others, summary.study_id)
    check_name(uri, "resnet", others, None)
    for study_id in ("0ddba11", None):
        with pytest.raises(TrackingError, match="another study lenet with the objectives val_accuracy:max"):
            check_name(uri, "lenet", others, study_id)
    assert read_everything(uri) == before


@pytest.fixture
def server_uri(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    shutil.copy(empty_store, tmp_path / SERVER_STORE)
    with run_server(tmp_path) as server:
        yield server.uri


@pytest.mark.slow
def test_study_goes_into_a_real_server_after_the_fact_with_its_models(
    summary: StudySummary, server_uri: str
) -> None:
    records = with_ends(make_records())
    store_model(summary, 0)
    write_views(summary, records)
    sync_study(summary, records, server_uri)
    before = read_everything(server_uri)
    assert (len(before["runs"]), len(before["models"])) == (6, 1)
    sync_study(summary, records, server_uri)
    assert read_everything(server_uri) == before
