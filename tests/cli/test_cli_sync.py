"""`dirprune sync` brings a study that is over to MLflow, and says in one line what hinders it."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import mlflow.pytorch
import pytest
import torch
from mlflow import MlflowClient

from dirprune.cli import study_run
from dirprune.errors import TrackingError
from dirprune.records.folder import StudyFolder
from dirprune.records.models import load_model
from dirprune.study.objectives import Objective
from dirprune.tracking import default_tracking_uri, names
from dirprune.tuning import storage
from tests.cli.conftest import Run
from tests.integration import toy_study


@pytest.fixture(autouse=True)
def store(folder: StudyFolder, empty_store: object) -> str:
    shutil.copy(str(empty_store), folder.output / "mlflow.db")
    return default_tracking_uri(folder.output)


def test_sync_brings_all_trials_and_names_what_is_missing(run: Run, folder: StudyFolder, store: str) -> None:
    result = run("sync", folder.root)
    assert (result.status, result.errors.count("error")) == (0, 0)
    lines = result.output.splitlines()
    assert lines[0] == "in MLflow: 4 trials, 0 models"
    assert lines[1].startswith("not in MLflow: the model of trial 1, the model of trial 0")
    assert "mlflow.db" in lines[2]
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    runs = {run.data.tags.get(names.TRIAL): run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {None, "0", "1", "2", "3"}
    assert {number: runs[number].info.status for number in ("1", "3", None)} == {
        "1": "FINISHED",
        "3": "RUNNING",
        None: "RUNNING",
    }
    assert runs["1"].data.metrics["val_accuracy"] == 0.98
    files = {file.path for file in client.list_artifacts(runs[None].info.run_id)}
    assert files == {"front.csv", "front.html", "front.png", "architectures.png", "trials.csv"}


def test_the_server_of_the_environment_is_meant(
    run: Run, folder: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for command in ("sync", "abandon", "explain"):
        result = run(command, folder.root)
        assert result.status == 2
        assert "no MLflow server answers at http://127.0.0.1:9" in result.errors


def test_study_that_is_being_driven_is_refused(run: Run, folder: StudyFolder) -> None:
    with storage.hold_study(folder):
        result = run("sync", folder.root)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "is being driven" in result.errors


def test_namesake_with_other_objectives_is_one_line(run: Run, folder: StudyFolder) -> None:
    run("sync", folder.root)
    text = folder.study_json.read_text()
    assert '"id": "1"' in text
    folder.study_json.write_text(text.replace('"id": "1"', '"id": "2"').replace('"macs",', '"parameters",'))
    result = run("sync", folder.root)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "another study lenet with the objectives val_accuracy:maximize, macs:minimize" in result.errors


def test_a_new_study_is_refused_where_a_namesake_in_the_store_beside_it_has_other_objectives(
    run: Run, folder: StudyFolder
) -> None:
    run("sync", folder.root)
    shutil.rmtree(folder.root)
    objectives = (Objective("val_accuracy", "maximize"), Objective("parameters", "minimize"))
    spec = SimpleNamespace(name=folder.root.name, objectives=objectives)
    arguments = SimpleNamespace(output=folder.output, tracking_uri=None)
    with pytest.raises(
        TrackingError, match="another study lenet with the objectives val_accuracy:maximize, m"
    ):
        study_run._check_store(spec, arguments)
    spec.objectives = (objectives[0], Objective("macs", "minimize"))
    study_run._check_store(spec, arguments)


def test_store_of_an_older_schema_is_one_line_with_the_way_out(run: Run, folder: StudyFolder) -> None:
    with sqlite3.connect(folder.output / "mlflow.db") as database:
        database.execute("UPDATE alembic_version SET version_num = 'cc1f77228345'")
    result = run("sync", folder.root)
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "schema" in result.errors
    assert "db upgrade sqlite:///" in result.errors


def test_address_with_a_mistake_and_a_folder_that_is_no_study_are_one_line(
    run: Run, folder: StudyFolder
) -> None:
    for arguments in ((folder.root, "--tracking-uri", "htp://host"), (folder.output,)):
        result = run("sync", *arguments)
        assert (result.status, result.errors.count("\n")) == (2, 1)


@pytest.mark.slow
def test_model_of_ones_own_network_comes_with_the_function_that_made_it(
    run: Run,
    own: StudyFolder,
    store: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without = run("sync", own.root)
    assert without.status == 0
    lines = without.output.splitlines()
    assert lines[0] == "in MLflow: 4 trials, 0 models"
    assert lines[2] == "the network is your own; try again with --network FILE.py:Toy"
    assert "trial 1 " not in caplog.text  # it is said once, not for each model
    result = run("sync", own.root, "--network", f"{toy_study.__file__}:Toy")
    assert result.status == 0, result.errors
    assert result.output.splitlines()[0] == "in MLflow: 4 trials, 1 models"
    assert "your own" not in result.output
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(names.EXPERIMENT)
    assert experiment is not None
    (model,) = client.search_logged_models([experiment.experiment_id])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # set_tracking_uri would set it for all later tests
    loaded = mlflow.pytorch.load_model(f"models:/{model.model_id}")
    inputs = torch.randn(5, 6)
    expected = load_model(own.model_dir(1), toy_study.Toy)(inputs)
    assert torch.allclose(loaded(inputs), expected, atol=1e-5)


def test_network_that_is_not_the_studys_is_one_line(run: Run, own: StudyFolder, tmp_path: Path) -> None:
    script = Path(toy_study.__file__)
    other = tmp_path / "other.py"
    other.write_text(script.read_text().replace("torch.relu(self.first", "torch.tanh(self.first"))
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('no')\n")
    for place, part in (
        ("toy_study.Toy", "expected --network FILE.py:NAME, got 'toy_study.Toy'; try "),
        (f"{tmp_path}/absent.py:Toy", "found none at"),
        (f"{script}:Tot", "unknown 'Tot'; did you mean 'Toy'"),
        (f"{broken}:Toy", "broken.py cannot be run: RuntimeError: no"),
        (f"{other}:Toy", "whose source is another"),
    ):
        result = run("sync", own.root, "--network", place)
        assert (result.status, result.errors.count("\n")) == (2, 1), result.errors
        assert part in result.errors


def test_network_is_refused_where_dirprune_knows_the_studys(run: Run, folder: StudyFolder) -> None:
    text = folder.study_json.read_text()
    folder.study_json.write_text(text.replace('"groups"', '"network": {"name": "lenet5"}, "groups"'))
    result = run("sync", folder.root, "--network", f"{toy_study.__file__}:Toy")
    assert (result.status, result.errors.count("\n")) == (2, 1)
    assert "expected no --network: this study's is lenet5" in result.errors
