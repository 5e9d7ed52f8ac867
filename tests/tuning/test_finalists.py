"""Finalists on a real Ray: trained in further seeds beside their trials, and only what is missing."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dirprune.errors import ConfigurationError, StudyError
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.tables import load_front
from dirprune.tuning import storage
from dirprune.tuning.finalists import FinalistAccounts, FinalistOptions
from tests.integration.toy_study import Toy

SCRIPT = Path(__file__).parent.parent / "integration" / "toy_study.py"


def run_toy(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--output", root, "--no-tracking", "--trials", "5", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def read_rows(folder: StudyFolder) -> list[dict[str, str]]:
    with folder.finalists_csv.open(newline="") as file:
        return list(csv.DictReader(file))


def n_attempts(folder: StudyFolder, trial: int, repetition: int) -> int:
    events = read_events(folder.finalist(trial, repetition).events(trial))
    return replay(events).n_attempts


def result_of(folder: StudyFolder, trial: int, repetition: int) -> dict[str, float]:
    return replay(read_events(folder.finalist(trial, repetition).events(trial))).finished["metrics"]


@pytest.mark.slow
def test_finalists_are_trained_once_and_only_what_is_missing_is_trained_again(tmp_path, ray_address):
    folder = StudyFolder(tmp_path / "toy")
    here = ("--ray-address", ray_address, "--finalists", "2", "--final-epochs", "1")
    said = run_toy(tmp_path, *here, "--final-seeds", "2")
    assert "final front: mean and standard deviation" in said
    rows = read_rows(folder)
    trials = [int(row["trial"]) for row in rows]
    assert 1 <= len(trials) <= 2
    for row in rows:
        assert row["n_seeds"] == "2"
        assert float(row["val_mae_std"]) > 0, "both seeds trained alike"
        assert float(row["parameters_std"]) == 0
    records = storage.read_records(folder)
    assert [record.number for record in records] == list(range(5)), "a finalist is no trial"
    assert all(
        (folder.finalist(trial, 0).model_dir(trial) / "model.safetensors").exists() for trial in trials
    )

    shutil.rmtree(folder.finalist(trials[0], 1).root)  # as if the driver had been killed before it
    run_toy(tmp_path, *here, "--final-seeds", "3", "--resume")
    again = read_rows(folder)
    assert [row["n_seeds"] for row in again] == ["3"] * len(trials)
    assert {n_attempts(folder, trial, seed) for trial in trials for seed in range(3)} == {1}

    final = load_front(folder, final=True)
    assert {point.trial for point in final} == {int(row["trial"]) for row in again if row["is_front"] == "1"}
    for point in final:  # each is a network to deploy: that of its best seed
        values = {seed: result_of(folder, point.trial, seed)["val_mae"] for seed in range(3)}
        best = min(values, key=values.__getitem__)
        assert point.model_dir == folder.finalist(point.trial, best).model_dir(point.trial)
        assert point.metrics["val_mae"] == pytest.approx(sum(values.values()) / 3)
        point.load_model(Toy)
    assert "finalists on the final front" in folder.front_html.read_text()
    for table in (folder.finalists_csv, folder.final_front_csv, folder.front_html):
        table.unlink()
    shown = subprocess.run(
        [sys.executable, "-m", "dirprune", "front", folder.root], capture_output=True, text=True, timeout=240
    )
    assert shown.returncode == 0, shown.stderr
    assert "final front: mean and standard deviation" in shown.stdout
    assert f"finalists/{final[0].trial}-" in shown.stdout
    assert load_front(folder, final=True) == final, "the table can be written again from what lies there"


def test_finalists_of_other_epochs_are_not_mixed(tmp_path):
    folder = StudyFolder(tmp_path)
    FinalistAccounts(folder, {}, {}, FinalistOptions(2, 5.0), print)
    with pytest.raises(StudyError, match="trained for 5 epochs, got 7; give --final-epochs 5"):
        FinalistAccounts(folder, {}, {}, FinalistOptions(2, 7.0), print)


@pytest.mark.parametrize("given", [(0, 1.0, 1), (1, 0.0, 1), (1, 1.0, 0), (1, float("nan"), 1)])
def test_options_that_cannot_work_are_refused(given):
    with pytest.raises(ConfigurationError, match="try --finalists 3"):
        FinalistOptions(*given)
