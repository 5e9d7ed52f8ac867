"""Everything that a study stands on is killed at random; then the accounts are counted.

    CHAOS_SECONDS=600 python -m pytest -q -m slow tests/integration/test_chaos.py

kills for ten minutes instead of half a minute with the trials in a journal, and for a quarter of that with
them in a database; CHAOS_SEED chooses other times and victims.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack

import pytest
import torch
from mlflow import MlflowClient

from dirprune.data import DataRoles
from dirprune.evaluation import evaluate
from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.front import mark_front
from dirprune.records.models import load_model
from dirprune.records.record import TrialRecord
from dirprune.tracking import names
from dirprune.tracking.views import view_trial
from dirprune.tuning import storage
from tests.deployment.services import run_postgres
from tests.integration.chaos import open_chaos
from tests.integration.digits_study import spec
from tests.object_store import run_store
from tests.tracking.mlflow_process import MlflowServer, run_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

SECONDS = float(os.environ.get("CHAOS_SECONDS", "30"))
DATABASE_SECONDS = SECONDS / 4  # what the two share need not be shown for so long again
SEED = int(os.environ.get("CHAOS_SEED", "0"))
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
SET_STATE = 6  # Optuna's number of the operation in its journal
FINISHED_STATES = (1, 2, 3)  # complete, pruned, failed


def test_accounts_are_exact_whatever_is_killed(tmp_path, monkeypatch):
    with ExitStack() as stack:
        store = stack.enter_context(run_store(tmp_path))
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        database = stack.enter_context(run_postgres())
        server = stack.enter_context(run_server(tmp_path, store=database.uri, settings=database.environment))
        parts = {"database": database, "store": store}
        chaos = stack.enter_context(open_chaos(tmp_path / "out", server, SEED, **parts))
        chaos.run(SECONDS)
        synced = [
            sys.executable,
            "-m",
            "dirprune",
            "sync",
            str(chaos.folder.root),
            "--tracking-uri",
            server.uri,
        ]
        done = subprocess.run(synced, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stderr
        records = chaos.read_records()
        print(f"killed {dict(chaos.done)}; trials {dict(Counter(record.state for record in records))}")
        check_numbers_and_states(chaos.folder, records)
        check_attempts(chaos.folder, records)
        check_models(chaos.folder)
        check_told_once(chaos.folder, records)
        check_mlflow(server, records)
    assert min(chaos.done[victim] for victim in chaos.deck) > 0


def test_accounts_in_a_database_are_exact_whatever_is_killed(tmp_path, monkeypatch):
    with run_postgres() as database:
        for name, value in database.environment.items():
            monkeypatch.setenv(name, value)
        with open_chaos(tmp_path / "out", None, SEED, trials=database) as chaos:
            chaos.run(DATABASE_SECONDS)
            records = chaos.read_records()
        print(f"killed {dict(chaos.done)}; trials {dict(Counter(record.state for record in records))}")
        check_numbers_and_states(chaos.folder, records)
        check_attempts(chaos.folder, records)
        check_models(chaos.folder)
        states = database.query("SELECT number, state FROM trials ORDER BY number").splitlines()
    told = dict(line.split("|") for line in states)
    assert len(told) == len(states)
    assert {number: state for number, state in told.items() if state != "WAITING"} == {
        str(record.number): record.state for record in records
    }
    assert min(chaos.done[victim] for victim in chaos.deck) > 0


def check_numbers_and_states(folder: StudyFolder, records: list[TrialRecord]) -> None:
    """Each number once, none RUNNING, no failure that is not the killer's, none COMPLETE that is not."""
    full = max(record.last_images for record in records)
    assert full == spec.images(spec.epochs, load_roles(folder))
    assert [record.number for record in records] == list(range(len(records)))
    for record in records:
        assert record.state in STATUS, record
        if record.state == "COMPLETE":
            assert record.last_images == (0 if record.source == "dense" else full)
            assert replay(read_events(folder.events(record.number))).finished is not None
        if record.state == "FAIL":
            assert "its worker was lost too often" in str(record.reason)
    assert not list(folder.checkpoints_dir.glob("*"))
    with folder.trials_csv.open(newline="") as file:
        rows = [(int(row["trial"]), row["state"]) for row in csv.DictReader(file)]
    assert rows == [(record.number, record.state) for record in records]


def load_roles(folder: StudyFolder) -> DataRoles:
    """Return the study's data."""
    data = storage.read_study_json(folder)["description"]["data"]
    return spec.load_data(None, data["validation_from"], spec.seed)


def check_attempts(folder: StudyFolder, records: list[TrialRecord]) -> None:
    """A trial goes on from its last checkpoint: an attempt loses at most the report that was being made."""
    n_resumed = 0
    for record in records:
        events = sorted(read_events(folder.events(record.number)), key=lambda event: event["time"])
        last: list[int] = []
        attempt = None
        for event in events:
            if event["event"] == "started":
                attempt, resumed_from = event["attempt"], event["resumed_from"]
                assert resumed_from in (last[-2:] or [None]) or (resumed_from is None and len(last) < 2), (
                    record.number,
                    last,
                    resumed_from,
                )
                n_resumed += resumed_from is not None
                last = [images for images in last if resumed_from is not None and images <= resumed_from]
            elif event["event"] == "report" and event["attempt"] == attempt:
                last.append(event["images"])
    assert n_resumed > 0


def check_models(folder: StudyFolder) -> None:
    """The front's models are whole: they load and have the accuracy that they were recorded with."""
    roles = load_roles(folder)
    with folder.front_csv.open(newline="") as file:
        front = {int(row["trial"]): float(row["val_accuracy"]) for row in csv.DictReader(file)}
    assert front
    for number, accuracy in front.items():
        network = load_model(folder.model_dir(number))
        with torch.no_grad():
            found = evaluate(network, roles.validation, roles, spec.task())
        assert found["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert {int(path.name) for path in folder.models_dir.iterdir()} == set(front)


def check_told_once(folder: StudyFolder, records: list[TrialRecord]) -> None:
    """Optuna's journal ends each trial once."""
    lines = [json.loads(line) for line in folder.journal.read_text().splitlines()]
    told = Counter(
        line["trial_id"]
        for line in lines
        if line["op_code"] == SET_STATE and line["state"] in FINISHED_STATES
    )
    assert told == {record.number: 1 for record in records}


def check_mlflow(server: MlflowServer, records: list[TrialRecord]) -> None:
    """MLflow has one run for each trial, which says what the study says, and one for the study."""
    client = MlflowClient(server.uri)
    runs = client.search_runs(
        [client.get_experiment_by_name(names.EXPERIMENT).experiment_id], max_results=5000
    )
    (study,) = [run for run in runs if run.data.tags[names.KIND] == "study"]
    assert study.info.status == "FINISHED"
    states = Counter(record.state for record in records)
    counts = {name: study.data.metrics.get(name) for name in names.COUNTS.values() if name != "n_infeasible"}
    assert counts == {
        "n_complete": states["COMPLETE"],
        "n_stopped": states["PRUNED"],
        "n_failed": states["FAIL"],
        "n_running": 0,
        "n_paused": 0,
    }
    trials = {int(run.data.tags[names.TRIAL]): run for run in runs if names.TRIAL in run.data.tags}
    assert len(runs) == 1 + len(records) == 1 + len(trials)
    for record in mark_front(records, spec.objectives):
        run = trials[record.number]
        assert run.info.status == STATUS[record.state]
        view = view_trial(record, study.data.tags[names.STUDY], study.data.tags[names.STUDY_ID])
        assert run.data.params == view.parameters
        assert view.tags.items() <= run.data.tags.items()
        last = {point.name: point.value for point in sorted(view.points, key=lambda p: (p.step, p.time_ms))}
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        # A lost attempt may have come further than the checkpoint from which the next one went on. MLflow
        # keeps what it said; of a trial that then failed before it came there again, the records do not.
        furthest = max((point.step for point in history), default=0)  # none of one that never came to report
        is_ahead = record.state == "FAIL" and furthest > record.last_images
        if is_ahead:
            history = [point for point in history if point.step <= record.last_images]
        else:
            assert run.data.metrics == pytest.approx(last)
        assert (names.MODEL_ID in run.data.tags) >= record.is_front
        by_step = {point.step: point.value for point in history}
        curve = {images: metrics["val_accuracy"] for images, metrics in record.curve}
        assert by_step == pytest.approx(curve)
        assert len(history) == len(curve)
