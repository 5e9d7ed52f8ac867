"""A study that is killed or interrupted goes on with --resume: nothing is lost, doubled or left RUNNING."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.tracking import default_tracking_uri, names
from dirprune.tuning import storage

SCRIPT = Path(__file__).with_name("toy_study.py")
N_TRIALS = 16
WAYS = ("kill -9", "kill", "Ctrl-C")
WAIT_S = 300

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def start(output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the study with slow evaluations, in a session of its own; two trials at once on any machine."""
    options = ["--output", output, "--trials", str(N_TRIALS), "--dense-epochs", "1", "--max-concurrent", "2"]
    return subprocess.Popen(
        [sys.executable, SCRIPT, *options, *arguments],
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
    driver: subprocess.Popen[str], folder: StudyFolder, wait_s: float = WAIT_S, before: Collection[int] = ()
) -> None:
    """Return when three trials have ended and another one has reported, last where it cannot be stopped.

    Its first and its third report are those of rungs: it may be stopped there, and the fifth one is its last.

    Args:
        driver: Of the study.
        folder: Of the study.
        wait_s: How long that may take.
        before: Trials that earlier runs had started; if there are some, all of them and one more have ended.
    """
    n_wanted = len(before) + (1 if before else 3)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if driver.poll() is not None:
            pytest.fail(f"the study ended before it could be stopped: {driver.stdout.read()}")
        if folder.study_json.exists():
            states = [record.state for record in storage.read_records(folder)]
            ended = {n for n, state in enumerate(states) if state != "RUNNING"}
            running = set(range(len(states))) - ended
            is_far_enough = len(ended) >= n_wanted and ended.issuperset(before)
            if is_far_enough and any(n_reports(folder, n) in (2, 4) for n in running):
                return
        time.sleep(0.1)
    pytest.fail("the study did not come far enough in time")


def by_number(folder: StudyFolder) -> dict[int, TrialRecord]:
    return {record.number: record for record in storage.read_records(folder)}


def was_chosen(record: TrialRecord) -> bool:
    """Whether the driver had chosen what the trial is before it was stopped; nobody was told of it if not."""
    return bool(record.architecture)


def n_reports(folder: StudyFolder, number: int) -> int:
    return len(replay(read_events(folder.events(number))).curve)


def n_attempts(folder: StudyFolder, number: int) -> int:
    return replay(read_events(folder.events(number))).n_attempts


@dataclass(frozen=True)
class Stand:
    """How a study stands after one of its runs.

    Attributes:
        said: What the run printed.
        status: Its exit status.
        has_front: Whether there is a table of the front.
        records: The trials by number.
        attempts: How often each was started.
        events: What each has written down.
    """

    said: str
    status: int
    has_front: bool
    records: dict[int, TrialRecord]
    attempts: dict[int, int]
    events: dict[int, bytes]

    def numbers(self, *, is_running: bool) -> list[int]:
        return [n for n, record in self.records.items() if (record.state == "RUNNING") == is_running]


def look(driver: subprocess.Popen[str], folder: StudyFolder) -> Stand:
    """Return how the study stands once the run has ended."""
    said, _ = driver.communicate(timeout=WAIT_S)
    records = by_number(folder)
    events = {n: folder.events(n).read_bytes() for n in records if folder.events(n).exists()}
    attempts = {n: n_attempts(folder, n) for n in records}
    return Stand(said, driver.returncode, folder.front_csv.exists(), records, attempts, events)


@dataclass(frozen=True)
class Interrupted:
    """A study that was interrupted in one way after the other, resumed each time, and came to its end.

    Attributes:
        output: Where it lies.
        kept: A copy of that after the last interruption.
        stands: After each run, the last of which nobody interrupted.
    """

    output: Path
    kept: Path
    stands: list[Stand]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Interrupted:
    """Interrupt a study in each way."""
    root = tmp_path_factory.mktemp("interrupted")
    output, kept = root / "out", root / "kept"
    output.mkdir()
    shutil.copy(empty_store, output / "mlflow.db")
    folder = StudyFolder(output / "toy")
    stands: list[Stand] = []
    for way in WAYS:
        driver = start(output, *(["--resume"] if stands else []))
        wait_until_in_the_middle(driver, folder, before=stands[-1].records if stands else ())
        if way == "kill -9":
            driver.kill()
        elif way == "kill":
            driver.terminate()
        else:
            os.killpg(driver.pid, signal.SIGINT)  # a terminal sends it to the whole group
        stands.append(look(driver, folder))
    shutil.copytree(output, kept)
    stands.append(look(start(output, "--resume"), folder))
    return Interrupted(output, kept, stands)


@pytest.mark.parametrize("way", WAYS)
def test_interrupted_study_goes_on_where_it_was(interrupted: Interrupted, way: str) -> None:
    place = WAYS.index(way)
    before, after = interrupted.stands[place : place + 2]
    if way != "kill -9":
        assert before.status == 130, before.said
        assert "Traceback" not in before.said
        assert "SIGTERM" not in before.said
        assert "kept; the same command with --resume goes on" in before.said
        assert before.has_front
    running = before.numbers(is_running=True)
    assert any(before.attempts[number] for number in running), "no trial was under way, so nothing is shown"
    for number in before.numbers(is_running=False):  # no finished trial runs again
        assert after.events[number] == before.events[number]
        assert after.records[number].state == before.records[number].state
        assert after.records[number].metrics == before.records[number].metrics
    for number in running:  # the same trial goes on, from its checkpoint if it had one
        old, new = before.records[number], after.records[number]
        if was_chosen(old):
            assert new.architecture == old.architecture
        assert after.attempts[number] == before.attempts[number] + 1
        assert [images for images, _ in new.curve][: len(old.curve)] == [images for images, _ in old.curve]


def test_study_that_was_interrupted_is_whole_in_every_view_at_its_end(interrupted: Interrupted) -> None:
    folder, end = StudyFolder(interrupted.output / "toy"), interrupted.stands[-1]
    assert end.status == 0, end.said
    assert sorted(end.records) == list(range(N_TRIALS))
    assert {record.state for record in end.records.values()} <= {"COMPLETE", "PRUNED"}
    with folder.trials_csv.open(newline="") as file:
        rows = {int(row["trial"]): row["state"] for row in csv.DictReader(file)}
    assert rows == {number: record.state for number, record in end.records.items()}
    assert not list(folder.checkpoints_dir.glob("*"))
    check_mlflow(interrupted.output, end.records)


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


@pytest.fixture
def before_the_end(interrupted: Interrupted) -> Iterator[Path]:
    """The output folder as it was after the last interruption."""
    end = interrupted.output.with_name("end")
    interrupted.output.rename(end)
    shutil.copytree(interrupted.kept, interrupted.output)
    yield interrupted.output
    shutil.rmtree(interrupted.output)
    end.rename(interrupted.output)


def test_abandoned_trials_end_in_every_view(
    interrupted: Interrupted, before_the_end: Path, tmp_path: Path
) -> None:
    folder, stand = StudyFolder(before_the_end / "toy"), interrupted.stands[-2]
    check_mlflow(interrupted.kept, {number: r for number, r in stand.records.items() if was_chosen(r)})
    running = stand.numbers(is_running=True)
    assert running
    command = [sys.executable, "-m", "dirprune", "abandon", folder.root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    after = by_number(folder)
    assert all(after[number].reason == "abandoned" for number in running)
    # MLflow keeps files open by their addresses, and at this one lies the study's end to other tests
    check_mlflow(shutil.copytree(before_the_end, tmp_path / "abandoned"), after)


def test_two_drivers_cannot_have_the_same_study(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "toy")
    first = start(tmp_path, "--no-tracking", "--trials", "1000")
    try:
        deadline = time.monotonic() + WAIT_S
        while not folder.study_json.exists():
            assert first.poll() is None, first.stdout.read()
            assert time.monotonic() < deadline, "the study did not begin in time"
            time.sleep(0.1)
        second = start(tmp_path, "--no-tracking", "--resume")
        said, _ = second.communicate(timeout=WAIT_S)
        assert second.returncode == 2
        driver = f"process {first.pid} on {socket.gethostname()}"
        assert f"is being driven by {driver}; wait for it" in said.splitlines()[-1]
        assert first.poll() is None, "the first one had ended, so nothing is shown"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(first.pid, signal.SIGINT)
        first.communicate(timeout=WAIT_S)
