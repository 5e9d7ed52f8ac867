"""A tracking store per test, copied from one that was set up once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.study.observer import StudySummary
from tests.records.example_study import N_CHANNELS, OBJECTIVES


@pytest.fixture
def output(tmp_path: Path, empty_store: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    shutil.copy(empty_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def summary(output: Path) -> StudySummary:
    return StudySummary(
        name="lenet",
        study_id="5ca1ab1e",
        folder=StudyFolder(output / "lenet"),
        objectives=OBJECTIVES,
        reference_point={"val_accuracy": 0.1, "macs": 498_750.0},
        dense_costs={"macs": 498_750.0, "parameters": 40_225.0},
        n_channels=N_CHANNELS,
        n_trials=5,
        seed=0,
        description={"network": "lenet5", "data": "digits"},
    )


@pytest.fixture
def without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirprune.tracking.uploader.log_model", lambda *arguments: None)
