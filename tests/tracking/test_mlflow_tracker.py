"""A study in a real SQLite store of MLflow: runs, states, resuming, and what happens when it fails."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from dirprune.networks import create_network
from dirprune.records.finalists import FinalTraining
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.models import load_model, save_model
from dirprune.records.record import TrialRecord
from dirprune.records.tables import write_front
from dirprune.study.observer import StudySummary
from dirprune.surgery import compact
from dirprune.tracing import find_groups
from dirprune.tracking import MlflowTracker, default_tracking_uri, names, sync_study
from dirprune.tracking.store import RemoteRun, RunStore
from dirprune.tracking.uploader import Uploader
from dirprune.tracking.views import RunView
from tests.records.example_study import OBJECTIVES, make_trial

KEPT = {"conv1": [0, 3], "conv2": [1, 2, 9], "linear1": [0, 2, 4, 6], "linear2": [5, 6]}


def make_records() -> list[TrialRecord]:
    return mark_front(
        [
            make_trial(0, "dense", 1.0, 0.99),
            make_trial(1, "uniform", 0.5, 0.95),
            make_trial(2, "sampler", 0.6, 0.90),
            make_trial(3, "sampler", 0.3, 0.50, state="PRUNED", reason="stopped at 1200 images"),
            make_trial(4, "sampler", 0.3, 0.50, state="FAIL", reason="ValueError: no", curve=(), times=()),
        ],
        OBJECTIVES,
    )


def track(
    summary: StudySummary, records: Sequence[TrialRecord], interrupted: bool = False, **settings: object
) -> list[str]:
    """Let a tracker see a study as a driver tells it; return what it could not upload."""
    tracker = MlflowTracker(interval_s=0.05, **settings)  # type: ignore[arg-type]
    tracker.study_started(summary)
    for record in records:
        n_reports = len(record.curve)
        for n_seen in range(n_reports):
            began = replace(record, state="RUNNING", curve=record.curve[:n_seen], times=record.times[:n_seen])
            tracker.trial_changed(began)
        tracker.trial_changed(record.on_front(False))
        finished = [r for r in records[: record.number + 1] if r.state == "COMPLETE"]
        front = [r for r in mark_front(finished, OBJECTIVES) if r.is_front]
        tracker.front_changed(front, 0.25 * len(finished), {"COMPLETE": len(finished), "FAIL": 0})
    tracker.study_ended(records, interrupted)
    return tracker.close(timeout=60)


def read_runs(output: Path) -> tuple[Run, dict[int, Run]]:
    """Return the one study's run and its children; anything doubled is an error."""
    client = MlflowClient(default_tracking_uri(output))
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id]))
    studies = [run for run in runs if run.data.tags[names.KIND] == "study"]
    trials = {int(run.data.tags[names.TRIAL]): run for run in runs if run.data.tags[names.KIND] == "trial"}
    assert len(studies) == 1
    assert len(trials) == len(runs) - 1
    assert {run.data.tags[names.PARENT] for run in trials.values()} <= {studies[0].info.run_id}
    return studies[0], trials


def read_history(output: Path, run: Run, metric: str) -> list[tuple[int, float]]:
    client = MlflowClient(default_tracking_uri(output))
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric)]


def store_model(summary: StudySummary, number: int) -> None:
    network, example = create_network("lenet5", seed=number), torch.zeros(2, 1, 28, 28)
    save_model(
        summary.folder.model_dir(number),
        compact(network, find_groups(network, example), KEPT, example),
        architecture={name: len(kept) for name, kept in KEPT.items()},
        kept=KEPT,
        base={"name": "lenet5", "options": {}},
        input_shape=(1, 28, 28),
        normalisation={"mean": (0.1307,), "std": (0.3081,)},
        metrics={"macs": 5.0},
    )


@pytest.mark.usefixtures("without_models")
def test_study_and_trials_are_there_with_states_curves_and_files(summary: StudySummary, output: Path) -> None:
    records = make_records()
    write_front(summary.folder.front_csv, records, OBJECTIVES)
    assert track(summary, records) == []
    study, trials = read_runs(output)
    assert study.info.status == "FINISHED"
    assert study.data.params["objectives"] == "val_accuracy:maximize, macs:minimize"
    assert study.data.params["network"] == "lenet5"
    assert read_history(output, study, "hypervolume") == [(1, 0.25), (2, 0.5), (3, 0.75)]
    counts = {name: study.data.metrics[name] for name in ("n_complete", "n_stopped", "n_failed", "n_running")}
    assert counts == {"n_complete": 3.0, "n_stopped": 1.0, "n_failed": 1.0, "n_running": 0.0}
    assert read_history(output, study, "front_size") == [(1, 1.0), (2, 2.0), (3, 2.0)]
    client = MlflowClient(default_tracking_uri(output))
    assert [file.path for file in client.list_artifacts(study.info.run_id)] == ["front.csv"]
    assert (output / "mlartifacts").is_dir()
    states = {number: run.info.status for number, run in trials.items()}
    assert states == {0: "FINISHED", 1: "FINISHED", 2: "FINISHED", 3: "KILLED", 4: "FAILED"}
    fronts = {number: run.data.tags[names.FRONT] for number, run in trials.items()}
    assert fronts == {0: "true", 1: "true", 2: "false", 3: "false", 4: "false"}
    assert trials[3].data.tags[names.STOPPED_AT] == "1200"
    assert trials[4].data.tags[names.ERROR] == "ValueError: no"
    one = trials[1]
    assert one.data.params["architecture"] == "5-10-50-12"
    assert one.data.params["channels.conv1"] == "5"
    assert one.data.params["lr"] == "0.001"
    assert one.data.metrics["test_accuracy"] == pytest.approx(0.948)
    assert one.info.start_time == 1_700_000_001_000
    curve = [(images, metrics["val_accuracy"]) for images, metrics in records[1].curve]
    assert read_history(output, one, "val_accuracy") == curve


@pytest.mark.usefixtures("without_models")
def test_resumed_study_goes_on_with_the_same_runs_and_nothing_doubles(
    summary: StudySummary, output: Path
) -> None:
    done, running = make_trial(0, "dense", 1.0, 0.99), make_trial(1, "sampler", 0.5, 0.9)
    half = replace(running, state="RUNNING", curve=running.curve[:2], times=running.times[:2])
    track(summary, mark_front([done, half], OBJECTIVES), interrupted=True)
    study, trials = read_runs(output)
    assert (study.info.status, trials[1].info.status) == ("RUNNING", "RUNNING")
    assert study.data.tags[names.PAUSED] == "true"
    records = mark_front([done, running, make_trial(2, "sampler", 0.4, 0.8)], OBJECTIVES)
    track(replace(summary, resumed=True, n_trials=9, description={"network": "changed"}), records)
    again, after = read_runs(output)
    assert again.info.run_id == study.info.run_id
    assert (again.info.status, again.data.tags[names.PAUSED]) == ("FINISHED", "false")
    assert again.data.params["network"] == "lenet5"
    assert again.data.tags[names.N_TRIALS] == "9"
    assert {n: run.info.run_id for n, run in trials.items()}.items() <= {
        n: run.info.run_id for n, run in after.items()
    }.items()
    for number, record in enumerate(records):
        curve = [(images, metrics["val_accuracy"]) for images, metrics in record.curve]
        assert read_history(output, after[number], "val_accuracy") == curve + (
            [] if curve[-1][1] == record.metrics["val_accuracy"] else [(1200, record.metrics["val_accuracy"])]
        )
    assert [step for step, _ in read_history(output, again, "hypervolume")] == [1, 2, 3]


@pytest.mark.usefixtures("without_models")
@pytest.mark.parametrize(
    ("has_failed", "has_ended", "is_interrupted", "status", "is_paused"),
    [
        (True, True, False, "FAILED", "false"),
        (True, True, True, "FAILED", "true"),
        (False, True, False, "FINISHED", "false"),
        (False, True, True, "RUNNING", "true"),
        (False, False, False, "RUNNING", "true"),
    ],
)
def test_how_a_study_was_left_is_there_also_where_nobody_told_of_its_end(
    summary: StudySummary,
    output: Path,
    has_failed: bool,
    has_ended: bool,
    is_interrupted: bool,
    status: str,
    is_paused: str,
) -> None:
    tracker = MlflowTracker(interval_s=0.05)
    tracker.study_started(summary)
    records = make_records()[:1]
    tracker.trial_changed(records[0])
    if has_failed:
        tracker.study_failed("10 trials in a row failed")
    if has_ended:
        tracker.study_ended(records, is_interrupted)
    assert tracker.close(timeout=60) == []
    study, _ = read_runs(output)
    assert (study.info.status, study.data.tags[names.PAUSED]) == (status, is_paused)
    uri = default_tracking_uri(output)
    sync_study(summary, records, uri)  # whose trials have all ended
    study, _ = read_runs(output)
    expected = "FAILED" if has_failed else "FINISHED"
    assert (study.info.status, study.data.tags[names.PAUSED]) == (expected, "false")


@pytest.mark.usefixtures("without_models")
def test_study_of_the_same_name_elsewhere_has_its_own_runs(summary: StudySummary, tmp_path: Path) -> None:
    uri = default_tracking_uri(summary.folder.output)
    track(summary, make_records()[:1])
    folder = replace(summary.folder, root=tmp_path / "other" / "lenet")
    other = replace(summary, study_id="0ddba11", folder=folder)
    track(other, make_records()[:2], tracking_uri=uri)
    for study, numbers in ((summary, [0]), (other, [0, 1])):
        found, trials = RunStore(uri, tmp_path, study.study_id).find_runs()
        assert found is not None
        assert found.tags[names.STUDY_ID] == study.study_id
        assert sorted(trials) == numbers


@pytest.mark.usefixtures("without_models")
def test_hundreds_of_groups_long_texts_and_odd_numbers_are_taken(summary: StudySummary, output: Path) -> None:
    curve = tuple((n, {"val_loss": math.nan, "val_b": math.inf, "val_c": float(n)}) for n in range(700))
    record = make_trial(0, "sampler", 0.5, 0.9, curve=curve, times=(), options={"text": "ü" * 7000})
    object.__setattr__(record, "architecture", {f"layers.{n}.conv": n + 1 for n in range(300)})
    assert track(summary, [record]) == []
    _, trials = read_runs(output)
    assert trials[0].data.params["channels.layers.299.conv"] == "300"
    assert len(trials[0].data.params["text"]) == names.MAX_PARAMETER
    assert len(read_history(output, trials[0], "val_c")) == 700


@pytest.mark.usefixtures("without_models")
def test_store_that_fails_for_a_while_loses_nothing_and_warns_once(
    summary: StudySummary, output: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter(range(5))
    real = MlflowClient.log_batch

    def failing(self: MlflowClient, *arguments: object, **keywords: object) -> object:
        if next(failures, None) is not None:
            raise ConnectionError("connection refused")
        return real(self, *arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    monkeypatch.setattr("dirprune.tracking.mlflow_tracker.FAILURES_AT_CLOSE", 20)
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        assert track(summary, make_records()) == []
    away, back = [record.message for record in caplog.records]
    store = default_tracking_uri(output)
    assert away.startswith(f"MLflow at {store} has not answered since 20")
    assert " (connection refused); the study has ended and nothing is lost" in away
    assert away.endswith(f"which dirprune sync {summary.folder.root} sends when MLflow is back")
    assert back.startswith(f"MLflow at {store} is back since 20")
    assert sorted(read_runs(output)[1]) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("without_models")
@pytest.mark.parametrize(
    ("follows", "said"),
    [
        ("the end", "the study has ended and nothing is lost: its own records keep all; not in MLflow: "),
        (
            "Ctrl-C",
            "the study was interrupted and nothing is lost: its own records keep all; not in MLflow: ",
        ),
        ("finalists", "the study goes on and nothing is lost: its own records keep all, "),
    ],
)
def test_store_that_fails_first_when_the_search_ends_is_told_once_by_what_has_become_of_the_study(
    summary: StudySummary,
    follows: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tried = threading.Semaphore(0)

    def fail(*arguments: object, **keywords: object) -> None:
        tried.release()
        raise ConnectionError("connection refused")

    monkeypatch.setattr(Uploader, "connect", fail)
    tracker = MlflowTracker(interval_s=0.05)
    monkeypatch.setattr("dirprune.tracking.mlflow_tracker.FAILURES_AT_CLOSE", 1)
    records = make_records()
    with caplog.at_level(logging.WARNING, "dirprune.tracking"):
        with tracker._lock:  # so that the first attempt is one after the search's end
            tracker.study_started(summary)
            tracker.study_ended(records, interrupted=follows == "Ctrl-C")
        assert all(tried.acquire(timeout=20) for _ in range(2))
        if follows == "finalists":
            tracker.finalist_changed(FinalTraining(records[0], 0))
            assert all(tried.acquire(timeout=20) for _ in range(3))
        left = tracker.close(timeout=20)
    first, *others = [record.message for record in caplog.records]
    assert f" (connection refused); {said}" in first
    assert f"dirprune sync {summary.folder.root}" in first
    if follows == "finalists":
        (last,) = others
        assert last.startswith("not in MLflow: 6 trials")
    else:
        assert left == ["5 trials", "the study's run with its files and models"]
        assert f" not in MLflow: {', '.join(left)}, which dirprune sync" in first
        assert others == []


@pytest.mark.usefixtures("without_models")
def test_trials_that_cannot_be_written_hold_up_nobody_else(
    summary: StudySummary, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = RunStore.update_

    def refusing(self: RunStore, run: RemoteRun, view: RunView) -> None:
        if view.tags.get(names.TRIAL) in ("1", "2"):
            raise ValueError("this trial cannot be written")
        real(self, run, view)

    monkeypatch.setattr(RunStore, "update_", refusing)
    assert track(summary, make_records()) == ["2 trials"]
    study, trials = read_runs(output)
    assert study.info.status == "FINISHED"
    states = {number: run.info.status for number, run in trials.items()}
    assert states == {0: "FINISHED", 1: "RUNNING", 2: "RUNNING", 3: "KILLED", 4: "FAILED"}


@pytest.mark.usefixtures("without_models")
def test_lost_answer_to_the_creation_of_a_run_leaves_no_double(
    summary: StudySummary, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, lost = MlflowClient.create_run, iter([True, False, True])

    def losing(self: MlflowClient, *arguments: object, **keywords: object) -> Run:
        run = real(self, *arguments, **keywords)  # type: ignore[arg-type]
        if next(lost, False):
            raise ConnectionError("answer lost")
        return run

    monkeypatch.setattr(MlflowClient, "create_run", losing)
    monkeypatch.setattr("dirprune.tracking.mlflow_tracker.FAILURES_AT_CLOSE", 20)
    assert track(summary, make_records()) == []
    assert sorted(read_runs(output)[1]) == [0, 1, 2, 3, 4]


@pytest.mark.usefixtures("without_models")
def test_dense_network_has_no_method_and_older_runs_that_name_one_are_completed(
    summary: StudySummary, tmp_path: Path
) -> None:
    older = make_records()
    assert older[0].method
    records = [replace(older[0], method="", options={}), *older[1:]]
    assert track(summary, records) == []
    dense = read_runs(summary.folder.output)[1][0]
    assert (dense.data.tags[names.METHOD], dense.data.params["method"]) == ("", "")
    again = replace(summary, study_id="another", folder=StudyFolder(tmp_path / "older" / "lenet"))
    again.folder.root.mkdir(parents=True)
    assert track(again, older[:2], interrupted=True) == []
    assert track(replace(again, resumed=True), records) == []
    dense = read_runs(again.folder.output)[1][0]
    assert dense.data.tags[names.METHOD] == ""
    assert dense.data.params["method"] == older[0].method  # what MLflow never changes


def test_store_that_never_works_does_not_hold_up_the_study(
    summary: StudySummary, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    tracker = MlflowTracker("sqlite:////proc/none/mlflow.db", interval_s=0.05)
    tracker.study_started(summary)
    for record in make_records():
        tracker.trial_changed(record)
    told = time.monotonic() - began
    tracker.study_ended(make_records(), False)
    left = tracker.close(timeout=20)
    assert told < 1.0
    assert left == ["5 trials", "the study's run with its files and models"]
    assert time.monotonic() - began < 25
    assert "not in MLflow: 5 trials" in caplog.text


def test_tracker_without_a_study_closes_at_once() -> None:
    assert MlflowTracker().close() == []


@pytest.mark.slow
def test_front_models_load_without_dirprune_without_pickle_and_once(
    summary: StudySummary, output: Path
) -> None:
    records = make_records()
    for number in (0, 1):
        store_model(summary, number)
    assert track(summary, records) == []
    assert track(replace(summary, resumed=True), records) == []
    client = MlflowClient(default_tracking_uri(output))
    _, trials = read_runs(output)
    experiment = trials[0].info.experiment_id
    models = client.search_logged_models([experiment])
    assert {model.source_run_id for model in models} == {trials[n].info.run_id for n in (0, 1)}
    assert len(models) == 2
    assert {model.status for model in models} == {"READY"}
    assert names.MODEL_ID not in trials[2].data.tags
    images = torch.arange(5 * 28 * 28).reshape(5, 1, 28, 28) / 1000
    torch.save(images, output / "images.pt")
    program = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dirprune":
            raise ImportError("dirprune is not here")
sys.meta_path.insert(0, Blocker())
import pickle
def refuse(*arguments, **keywords):
    raise AssertionError("a pickle was loaded")
import mlflow.pytorch, torch
pickle.load = pickle.loads = pickle._load = pickle._loads = refuse
mlflow.set_tracking_uri({default_tracking_uri(output)!r})
images = torch.load({str(output / "images.pt")!r}, weights_only=True)
model = mlflow.pytorch.load_model("runs:/{trials[1].info.run_id}/model")
torch.save(model(images).detach(), {str(output / "outputs.pt")!r})
by_id = mlflow.pytorch.load_model("models:/{trials[1].data.tags[names.MODEL_ID]}")
assert torch.equal(by_id(images), model(images))
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=output,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = load_model(summary.folder.model_dir(1))(images)
    torch.testing.assert_close(torch.load(output / "outputs.pt", weights_only=True), expected.detach())


def test_model_that_cannot_be_exported_is_named_and_its_files_are_kept(
    summary: StudySummary, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store_model(summary, 0)
    weights = summary.folder.model_dir(0) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    left = track(summary, make_records()[:1])
    assert left == ["the model of trial 0"]
    assert "the model of trial 0 was not logged" in caplog.text
    study, trials = read_runs(output)
    assert study.info.status == "FINISHED"
    client = MlflowClient(default_tracking_uri(output))
    files = [file.path for file in client.list_artifacts(trials[0].info.run_id, "model")]
    assert files == ["model/architecture.json", "model/model.safetensors"]
    assert client.search_logged_models([study.info.experiment_id]) == []
