"""A study that is killed or interrupted goes on with --resume: nothing is lost, doubled or left RUNNING."""

from __future__ import annotations

import csv
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.tracking import default_tracking_uri, names
from dirprune.tuning import storage

SCRIPT = Path(__file__).with_name("toy_study.py")
N_TRIALS = 10
WAIT_S = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the study with slow evaluations, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, "--output", output, "--trials", str(N_TRIALS), *arguments],
        env={**os.environ, "TOY_SECONDS": "0.4", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=hear_ctrl_c,
    )


def hear_ctrl_c() -> None:
    """Let the study hear SIGINT also where the tests run in the background, in which it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until_in_the_middle(
    driver: subprocess.Popen[str], folder: StudyFolder, wait_s: float = WAIT_S
) -> None:
    """Return when three trials have ended and another one has reported."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if driver.poll() is not None:
            pytest.fail(f"the study ended before it could be stopped: {driver.stdout.read()}")
        if folder.study_json.exists():
            states = [record.state for record in storage.read_records(folder)]
            ended = sum(state != "RUNNING" for state in states)
            running = [n for n, state in enumerate(states) if state == "RUNNING"]
            if ended >= 3 and any(replay(read_events(folder.events(n))).curve for n in running):
                return
        time.sleep(0.1)
    pytest.fail("the study did not come far enough in time")


def by_number(folder: StudyFolder) -> dict[int, TrialRecord]:
    return {record.number: record for record in storage.read_records(folder)}


def was_chosen(record: TrialRecord) -> bool:
    """Whether the driver had chosen what the trial is before it was stopped; nobody was told of it if not."""
    return bool(record.architecture)


def n_attempts(folder: StudyFolder, number: int) -> int:
    return replay(read_events(folder.events(number))).n_attempts


@pytest.mark.parametrize("way", ["kill -9", "kill", "Ctrl-C"])
def test_interrupted_study_goes_on_where_it_was(tmp_path, way):
    folder = StudyFolder(tmp_path / "toy")
    driver = start(tmp_path)
    wait_until_in_the_middle(driver, folder)
    if way == "kill -9":
        driver.kill()
    elif way == "kill":
        driver.terminate()
    else:
        os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to the whole group
    said, _ = driver.communicate(timeout=WAIT_S)
    before = by_number(folder)
    ended = [number for number, record in before.items() if record.state != "RUNNING"]
    running = [number for number, record in before.items() if record.state == "RUNNING"]
    if way != "kill -9":
        assert driver.returncode == 130, said
        assert "Traceback" not in said
        assert "SIGTERM" not in said
        assert "kept; the same command with --resume goes on" in said
        assert folder.front_csv.exists()
    attempts_before = {number: n_attempts(folder, number) for number in running}
    assert any(attempts_before.values()), "no trial was under way, so nothing is shown"
    events_of_ended = {number: folder.events(number).read_bytes() for number in ended}

    resumed = start(tmp_path, "--resume")
    said, _ = resumed.communicate(timeout=WAIT_S)
    assert resumed.returncode == 0, said
    after = by_number(folder)
    assert sorted(after) == list(range(N_TRIALS))
    assert {record.state for record in after.values()} <= {"COMPLETE", "PRUNED"}
    for number in ended:  # no finished trial runs again
        assert folder.events(number).read_bytes() == events_of_ended[number]
        assert after[number].state == before[number].state
        assert after[number].metrics == before[number].metrics
    for number in running:  # the same trial goes on, from its checkpoint if it had one
        if was_chosen(before[number]):
            assert after[number].architecture == before[number].architecture
        assert n_attempts(folder, number) == attempts_before[number] + 1
        assert [images for images, _ in after[number].curve][: len(before[number].curve)] == [
            images for images, _ in before[number].curve
        ]
    with folder.trials_csv.open(newline="") as file:
        rows = {int(row["trial"]): row["state"] for row in csv.DictReader(file)}
    assert rows == {number: record.state for number, record in after.items()}
    assert not list(folder.checkpoints_dir.glob("*"))
    check_mlflow(tmp_path, after)


def check_mlflow(output: Path, records: dict[int, TrialRecord]) -> None:
    """Check that MLflow says of each trial, once, what the storage says."""
    client = MlflowClient(default_tracking_uri(output))
    runs = client.search_runs([client.get_experiment_by_name(names.EXPERIMENT).experiment_id])
    (study,) = [run for run in runs if run.data.tags[names.KIND] == "study"]
    trials = [run for run in runs if run.data.tags.get(names.PARENT) == study.info.run_id]
    statuses = sorted((int(run.data.tags[names.TRIAL]), run.info.status) for run in trials)
    assert statuses == [(number, expected_status(record)) for number, record in sorted(records.items())]
    for run in trials:
        record = records[int(run.data.tags[names.TRIAL])]
        assert (names.STOPPED_AT in run.data.tags) == (record.state == "PRUNED")
        steps = sorted({point.step for point in client.get_metric_history(run.info.run_id, "val_mae")})
        curve = [images for images, _ in record.curve]
        if record.state == "RUNNING":  # its worker may have written one more report while it was being ended
            assert steps == curve[: len(steps)]
            continue
        assert steps == curve
        assert run.data.metrics.get("val_mae") == pytest.approx(record.metrics.get("val_mae"))
    with StudyFolder(output / "toy").front_csv.open(newline="") as file:
        front = {row["trial"] for row in csv.DictReader(file)}
    assert {run.data.tags[names.TRIAL] for run in trials if run.data.tags[names.FRONT] == "true"} == front


def expected_status(record: TrialRecord) -> str:
    if record.reason == "abandoned":
        return "KILLED"
    return {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED", "RUNNING": "RUNNING"}[record.state]


def test_abandoned_trials_end_in_every_view(tmp_path):
    folder = StudyFolder(tmp_path / "toy")
    driver = start(tmp_path)
    wait_until_in_the_middle(driver, folder)
    os.killpg(driver.pid, signal.SIGINT)
    driver.communicate(timeout=WAIT_S)
    interrupted = by_number(folder)
    check_mlflow(tmp_path, {number: r for number, r in interrupted.items() if was_chosen(r)})
    running = [number for number, record in interrupted.items() if record.state == "RUNNING"]
    assert running
    command = [sys.executable, "-m", "dirprune", "abandon", folder.root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    after = by_number(folder)
    assert all(after[number].reason == "abandoned" for number in running)
    check_mlflow(tmp_path, after)


def test_two_drivers_cannot_have_the_same_study(tmp_path):
    folder = StudyFolder(tmp_path / "toy")
    first = start(tmp_path, "--no-tracking")
    try:
        wait_until_in_the_middle(first, folder)
        second = start(tmp_path, "--no-tracking", "--resume")
        said, _ = second.communicate(timeout=WAIT_S)
        assert second.returncode == 2
        driver = f"process {first.pid} on {socket.gethostname()}"
        assert f"is being driven by {driver}; wait for it" in said.splitlines()[-1]
    finally:
        os.killpg(first.pid, signal.SIGINT)
        first.communicate(timeout=WAIT_S)
