"""Finalists in a real SQLite store of MLflow: a run for each training, means on the study's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from dirprune.records.finalists import FinalTraining, summarise_finalists
from dirprune.records.front import mark_front
from dirprune.study.observer import StudySummary
from dirprune.tracking import MlflowTracker, default_tracking_uri, names, uploader
from tests.records.example_study import OBJECTIVES, make_trial

TRIALS = mark_front([make_trial(0, "dense", 1.0, 0.99), make_trial(1, "sampler", 0.3, 0.95)], OBJECTIVES)


@pytest.fixture(autouse=True)
def without_models(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Take down which models would be logged, instead of exporting them."""
    logged: list[Path] = []
    monkeypatch.setattr(
        uploader, "log_model", lambda client, experiment, run, folder, network: logged.append(folder)
    )
    return logged


def make_training(seed: int, accuracy: float, **changes: object) -> FinalTraining:
    metrics = {**TRIALS[1].metrics, "val_accuracy": accuracy}
    curve = ((0, {"val_accuracy": 0.5}), (2400, {"val_accuracy": accuracy}))
    return FinalTraining(
        replace(TRIALS[1], metrics=metrics, curve=curve, times=(2e9, 2e9 + 1), **changes), seed
    )


def track(summary: StudySummary, trainings: Sequence[FinalTraining], interrupted: bool = False) -> None:
    """Tell a tracker of a study and then of trainings, as a driver does."""
    tracker = MlflowTracker(interval_s=0.05)
    tracker.study_started(summary)
    for record in TRIALS:
        tracker.trial_changed(record)
    tracker.front_changed(TRIALS, 0.5, {"COMPLETE": 2})
    tracker.study_ended(TRIALS, interrupted=False)
    for training in trainings:
        tracker.finalist_changed(training)
    tracker.finalists_ended(summarise_finalists(trainings, OBJECTIVES), interrupted)
    assert tracker.close(timeout=60) == []


def read_runs(output: Path) -> tuple[Run, dict[int, Run]]:
    """Return the study's run and its finalists' by repetition; anything doubled is an error."""
    client = MlflowClient(default_tracking_uri(output))
    found = client.get_experiment_by_name(names.EXPERIMENT)
    runs = list(client.search_runs([found.experiment_id]))
    (study,) = [run for run in runs if run.data.tags[names.KIND] == "study"]
    (parent,) = [
        run for run in runs if run.data.tags.get(names.TRIAL) == "1" and names.STAGE not in run.data.tags
    ]
    finals = [run for run in runs if run.data.tags.get(names.STAGE) == "final"]
    assert {run.data.tags[names.PARENT] for run in finals} <= {parent.info.run_id}
    assert {run.data.tags[names.TRIAL] for run in finals} <= {"1"}
    by_repetition = {int(run.data.tags[names.REPETITION]): run for run in finals}
    assert len(by_repetition) == len(finals)
    assert len(runs) == 1 + len(TRIALS) + len(finals)
    return study, by_repetition


def test_each_training_has_a_run_below_its_trials_and_the_study_has_means(
    summary: StudySummary, output: Path, without_models: list[Path]
) -> None:
    summary.folder.root.mkdir()
    for path in (summary.folder.final_front_csv, summary.folder.finalists_csv):
        path.write_text("trial\n1\n")
    track(summary, [make_training(0, 0.94), make_training(1, 0.96)])
    study, finals = read_runs(output)
    assert {seed: run.data.metrics["val_accuracy"] for seed, run in finals.items()} == {0: 0.94, 1: 0.96}
    assert {run.info.status for run in (study, *finals.values())} == {"FINISHED"}
    assert study.data.metrics["final.1.val_accuracy"] == pytest.approx(0.95)
    assert study.data.metrics["final.1.val_accuracy_std"] == pytest.approx(0.01 * 2**0.5)
    assert study.data.metrics["final_front_size"] == 1
    assert [finals[seed].data.tags[names.FRONT] for seed in (0, 1)] == ["false", "true"]
    deployed = summary.folder.finalist(1, 1).model_dir(1)
    assert without_models.count(deployed) >= 1
    assert summary.folder.finalist(1, 0).model_dir(1) not in without_models
    client = MlflowClient(default_tracking_uri(output))
    artifacts = {file.path for file in client.list_artifacts(study.info.run_id)}
    assert {"final_front.csv", "finalists.csv"} <= artifacts


def test_resumed_finalists_go_on_with_the_same_runs(summary: StudySummary, output: Path) -> None:
    half = make_training(1, 0.96, state="RUNNING")
    failed = make_training(2, 0.9, state="FAIL", reason="ValueError: no")
    track(summary, [make_training(0, 0.94), half, failed], interrupted=True)
    study, first = read_runs(output)
    statuses = {seed: run.info.status for seed, run in first.items()}
    assert statuses == {0: "FINISHED", 1: "RUNNING", 2: "FAILED"}
    assert study.info.status == "RUNNING"
    everything = [make_training(0, 0.94), make_training(1, 0.96), make_training(2, 0.95)]
    for _ in range(2):  # once more changes nothing
        track(replace(summary, resumed=True), everything)
        study, finals = read_runs(output)
        assert {seed: run.info.run_id for seed, run in finals.items()} == {
            seed: run.info.run_id for seed, run in first.items()
        }
        assert {run.info.status for run in (study, *finals.values())} == {"FINISHED"}
        client = MlflowClient(default_tracking_uri(output))
        for seed, run in finals.items():
            history = client.get_metric_history(run.info.run_id, "val_accuracy")
            steps = sorted(point.step for point in history)
            assert steps[:2] == [0, 2400]
            assert len(steps) == (3 if seed == 2 else 2), (
                "a training that was tried again adds its own values"
            )
        means = client.get_metric_history(study.info.run_id, "final.1.val_accuracy")
        assert [point.step for point in means] == [1, 3]  # numbers of seeds
        assert study.data.metrics["final.1.val_accuracy"] == pytest.approx(0.95)
