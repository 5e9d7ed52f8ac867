"""`dirprune explain` shows what moved a study's objectives, and refuses what would mislead."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import optuna
import pytest
from mlflow import MlflowClient

from dirprune.architecture import Architecture
from dirprune.files import write_json
from dirprune.records.events import EventLog
from dirprune.records.folder import StudyFolder
from dirprune.study.space import Configuration
from dirprune.tracking import default_tracking_uri, names
from dirprune.tuning import storage
from tests.cli.conftest import Run

OBJECTIVES = [["val_accuracy", "maximize"], ["macs", "minimize"]]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    """A study of 30 finished trials whose accuracy is noise and whose MACs follow from the widths."""
    folder = StudyFolder(tmp_path / "lenet")
    folder.root.mkdir()
    description = {"objectives": OBJECTIVES, "groups": {"conv1": 10, "conv2": 20}, "seed": 0}
    payload = {
        "name": "lenet",
        "id": "1",
        "optuna_study": "lenet-1",
        "storage": "journal",
        "dense_costs": {"macs": 220, "parameters": 22},
        "description": {**description, "reference_point": {"val_accuracy": 0.1, "macs": 220}},
    }
    write_json(folder.study_json, payload, schema=storage.STUDY_SCHEMA)
    study = storage.create_study(folder, payload)
    rng = np.random.default_rng(0)
    for number in range(30):
        conv1, conv2 = int(rng.integers(1, 11)), int(rng.integers(1, 21))
        macs, accuracy = 20 * conv1 + conv2, float(rng.random())
        architecture = Architecture({"conv1": conv1, "conv2": conv2})
        configuration = Configuration(number, "sampler", architecture, "magnitude", {"norm": "l1"}, {})
        study.ask().set_user_attr(storage.CONFIGURATION, configuration.to_json())
        log = EventLog(folder.events(number), "attempt")
        log.append("started", resumed_from=None)
        metrics = {"val_accuracy": accuracy, "macs": macs}
        log.append("report", images=100, metrics=metrics)
        log.append("finished", metrics=metrics)
        storage.settle(study, number, optuna.trial.TrialState.COMPLETE, {}, [accuracy, macs])
    return folder


def test_explains_what_it_can_predict_and_refuses_the_rest(run: Run, folder: StudyFolder) -> None:
    result = run("explain", folder.root)
    assert (result.status, result.errors) == (0, "")
    assert "val_accuracy: out-of-fold R2 -" in result.output
    assert "not explained" in result.output
    _, header, strongest = result.output.split("macs: out-of-fold")[1].splitlines()[:3]
    assert strongest.split()[0] == "conv1"
    assert header.index("effect") == strongest.index("rises")
    assert folder.explanations_csv.exists()
    assert folder.explanation_png("macs").exists()
    assert not folder.explanation_png("val_accuracy").exists()


@pytest.mark.slow
def test_a_picture_of_what_is_no_longer_trusted_goes(run: Run, folder: StudyFolder) -> None:
    assert run("explain", folder.root, "--min-r2", -10).status == 0
    assert folder.explanation_png("val_accuracy").exists()
    assert run("explain", folder.root).status == 0
    assert folder.explanation_png("macs").exists()
    assert not folder.explanation_png("val_accuracy").exists()
    assert run("explain", folder.root, "--min-r2", 1).status == 2
    assert not folder.explanation_png("macs").exists()


def test_nothing_is_written_when_nothing_can_be_explained(run: Run, folder: StudyFolder) -> None:
    result = run("explain", folder.root, "--objective", "val_accuracy")
    assert result.status == 2
    assert "no surrogate reached an out-of-fold R2 of 0.3" in result.errors
    assert not folder.explanations_csv.exists()


def test_an_unknown_objective_names_the_nearest(run: Run, folder: StudyFolder) -> None:
    result = run("explain", folder.root, "--objective", "mac")
    assert result.status == 2
    assert "'macs'" in result.errors


@pytest.mark.slow
def test_table_and_pictures_are_on_the_run_of_the_study(
    run: Run, folder: StudyFolder, empty_store: Path
) -> None:
    assert "MLflow" not in run("explain", folder.root).output
    shutil.copy(empty_store, folder.output / "mlflow.db")
    assert run("sync", folder.root).status == 0
    result = run("explain", folder.root)
    assert "MLflow: the same files on the study's run" in result.output, result.errors
    client = MlflowClient(default_tracking_uri(folder.output))
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], f"tags.`{names.KIND}` = 'study'")
    files = {file.path for file in client.list_artifacts(found[0].info.run_id)}
    assert {folder.explanations_csv.name, folder.explanation_png("macs").name} <= files
