"""A study that is killed while it trains its finalists goes on: nothing is lost and nothing is done twice."""

from __future__ import annotations

import csv
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dirprune.records.events import read_events, replay
from dirprune.records.finalists import FinalTraining, read_trainings
from dirprune.records.folder import StudyFolder
from dirprune.tracking import default_tracking_uri, names
from dirprune.tuning import storage
from tests.integration.test_interrupted_study import WAIT_S, start

N_FINALISTS, N_SEEDS = 2, 2
OPTIONS = (
    "--trials",
    "5",
    "--epochs",
    "1",
    "--rungs",
    "0",
    "--finalists",
    str(N_FINALISTS),
    "--final-seeds",
    str(N_SEEDS),
    "--final-epochs",
    "12",
)

Key = tuple[int, int]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def by_key(folder: StudyFolder) -> dict[Key, FinalTraining]:
    trainings = read_trainings(folder, storage.read_records(folder)) if folder.study_json.exists() else []
    return {(training.record.number, training.repetition): training for training in trainings}


def events_of(folder: StudyFolder, key: Key) -> list[dict]:
    return read_events(folder.finalist(*key).events(key[0]))


def wait_until_in_the_middle(driver: subprocess.Popen[str], folder: StudyFolder) -> None:
    """Return when a training has ended and another one is between its third and its seventh report.

    Trainings that began together end together: one of those that have nearly ended is no middle.
    """
    deadline = time.monotonic() + 2 * WAIT_S
    while time.monotonic() < deadline:
        if driver.poll() is not None:
            pytest.fail(f"the study ended before it could be killed: {driver.stdout.read()}")
        found = by_key(folder).values()
        has_ended = any(training.record.state == "COMPLETE" for training in found)
        if has_ended and any(t.record.state == "RUNNING" and 2 < len(t.record.curve) < 7 for t in found):
            return
        time.sleep(0.05)
    pytest.fail("the study did not come far enough in time")


def test_killed_finalists_go_on_from_their_checkpoints_and_none_is_trained_twice(
    tmp_path: Path, empty_store: Path
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    folder = StudyFolder(tmp_path / "toy")
    driver = start(tmp_path, *OPTIONS)
    wait_until_in_the_middle(driver, folder)
    driver.kill()
    driver.communicate(timeout=WAIT_S)
    time.sleep(2.0)  # until the workers have noticed and are gone, too
    before = by_key(folder)
    ended = {key: events_of(folder, key) for key, t in before.items() if t.record.state == "COMPLETE"}
    cut_off = {key: t for key, t in before.items() if t.record.state == "RUNNING" and t.record.curve}
    assert ended
    assert any(training.record.last_images for training in cut_off.values()), "none was in the middle"
    attempts = {key: replay(events_of(folder, key)).n_attempts for key in cut_off}
    trials = {
        record.number: folder.events(record.number).read_bytes() for record in storage.read_records(folder)
    }

    resumed = start(tmp_path, *OPTIONS, "--resume")
    said, _ = resumed.communicate(timeout=2 * WAIT_S)
    assert resumed.returncode == 0, said
    after = by_key(folder)
    assert len(after) == N_FINALISTS * N_SEEDS
    assert {training.record.state for training in after.values()} == {"COMPLETE"}
    for key in after:
        finished = [event for event in events_of(folder, key) if event["event"] == "finished"]
        assert len(finished) == 1, f"{key} was trained more than once"
    for key, events in ended.items():
        assert events_of(folder, key) == events
    for key, training in cut_off.items():
        events = events_of(folder, key)
        assert replay(events).n_attempts == attempts[key] + 1
        started = [event for event in events if event["event"] == "started"][-1]
        # the checkpoint follows its report, so that the last report may be younger
        assert started["resumed_from"] in [images for images, _ in training.record.curve][-2:]
        n_before = len([images for images, _ in training.record.curve if images <= started["resumed_from"]])
        assert after[key].record.curve[:n_before] == training.record.curve[:n_before]
    for number, events in trials.items():  # the search is over: no trial runs again
        assert folder.events(number).read_bytes() == events
    assert not list(folder.finalists_dir.glob("*/checkpoints/*"))
    with folder.finalists_csv.open(newline="") as file:
        assert [row["n_seeds"] for row in csv.DictReader(file)] == [str(N_SEEDS)] * N_FINALISTS
    check_mlflow(tmp_path, after)


def check_mlflow(output: Path, trainings: dict[Key, FinalTraining]) -> None:
    """Check that MLflow has one finished run for each training, with its values, and a finished study."""
    client = MlflowClient(default_tracking_uri(output))
    runs = client.search_runs([client.get_experiment_by_name(names.EXPERIMENT).experiment_id])
    final = [run for run in runs if run.data.tags.get(names.STAGE) == names.FINAL]
    assert len(final) == len(trainings)
    for run in final:
        key = (int(run.data.tags[names.TRIAL]), int(run.data.tags[names.REPETITION]))
        assert run.data.metrics["val_mae"] == pytest.approx(trainings[key].record.metrics["val_mae"])
        steps = sorted(point.step for point in client.get_metric_history(run.info.run_id, "val_mae"))
        assert steps == [images for images, _ in trainings[key].record.curve]
    (study,) = [run for run in runs if run.data.tags[names.KIND] == "study"]
    assert {run.info.status for run in (study, *final)} == {"FINISHED"}
