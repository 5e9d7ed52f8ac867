"""A study whose machines share an object store alone: what is lost goes on from there, and it may be full."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dirprune.records.events import read_events, replay
from dirprune.records.folder import StudyFolder
from dirprune.records.models import ARCHITECTURE
from dirprune.remote import RemoteFolder
from dirprune.tuning import storage
from tests.deployment.services import run_object_store
from tests.integration.test_interrupted_study import wait_until_in_the_middle
from tests.object_store import run_store

SCRIPT = Path(__file__).with_name("toy_study.py")
OPTIONS = ("--no-tracking", "--dense-epochs", "1")
WAIT_S = 400
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@contextmanager
def start(
    uri: str, environment: dict[str, str], output: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """Start the study, slow enough to be stopped; at the end it is killed with all its processes."""
    driver = subprocess.Popen(
        [sys.executable, SCRIPT, "--output", output, "--storage", uri, *OPTIONS, *arguments],
        env={**os.environ, "TOY_SECONDS": "0.4", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield driver
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)
        driver.communicate()


def test_killed_worker_and_killed_driver_go_on_from_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    folder = StudyFolder(output / "toy")
    trouble = tmp_path / "trouble"
    trouble.mkdir()
    with run_store(tmp_path) as store:
        environment = {**store.environment, "TOY_TROUBLE": str(trouble)}
        with start(store.uri, environment, output, "--trials", "8") as driver:
            wait_until_in_the_middle(driver, folder, WAIT_S)
        assert not folder.checkpoints_dir.exists(), "checkpoints are in the store alone"
        with start(f"{store.uri}/elsewhere", environment, output, "--trials", "8", "--resume") as driver:
            said, _ = driver.communicate(timeout=WAIT_S)
            assert driver.returncode == 2, said
            assert "study toy has storage s3://" in said
        shutil.rmtree(folder.events_dir)  # what trials said is in the store as well
        folder.events_dir.mkdir()
        with start(store.uri, environment, output, "--trials", "8", "--resume") as driver:
            said, _ = driver.communicate(timeout=WAIT_S)
            assert driver.returncode == 0, said
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        payload = storage.read_study_json(folder)
        remote = RemoteFolder(payload["shared"], patience_s=5)
        records = storage.read_records(folder)
        assert [record.number for record in records] == list(range(8))
        states = {record.state for record in records}
        assert states <= {"COMPLETE", "PRUNED", "FAIL"}
        starts = [
            event["resumed_from"]
            for number in range(8)
            for event in read_events(folder.events(number))
            if event["event"] == "started"
        ]
        assert len(starts) > 8
        assert any(images is not None for images in starts), "no trial went on from a checkpoint"
        front = {path.name for path in folder.models_dir.iterdir()}
        assert front
        assert {name.split("/")[1] for name in remote.list("models")} == front
        for number in front:
            assert (folder.models_dir / number / ARCHITECTURE).is_file()
            assert replay(read_events(folder.events(int(number)))).finished is not None
        assert remote.list("checkpoints") == []
        assert remote.read("front.csv") == folder.front_csv.read_bytes()
        assert remote.read("optuna.journal") is not None


def test_store_that_is_full_in_mid_study_ends_it_in_one_line_and_it_goes_on_with_room(tmp_path: Path) -> None:
    output = tmp_path / "out"
    folder = StudyFolder(output / "toy")
    with run_object_store(tmp_path) as store:
        store.client.create_bucket(Bucket="bucket")
        environment = {
            **store.environment,
            "AWS_ENDPOINT_URL": store.endpoint,
            "DIRPRUNE_STORAGE_PATIENCE": "2",
        }
        uri = "s3://bucket/dirprune"
        with start(uri, environment, output, "--trials", "6") as driver:
            wait_until_in_the_middle(driver, folder, WAIT_S)
            with store.full("XMinioStorageFull"):
                said, _ = driver.communicate(timeout=WAIT_S)
        assert driver.returncode == 2, said
        assert "Traceback" not in said
        last = said.splitlines()[-1]
        began = f"error: the study ended by itself: cannot write to the storage {uri}/toy"
        assert last.startswith(began), last
        assert "XMinioStorageFull" in last
        assert last.endswith("; make room there, then the same command with --resume goes on")
        before = {record.number: record for record in storage.read_records(folder)}
        assert {record.state for record in before.values()} <= {"COMPLETE", "PRUNED", "RUNNING"}
        assert any(record.state == "RUNNING" for record in before.values()), "nothing was left to go on with"

        with start(uri, environment, output, "--trials", "6", "--resume") as driver:
            said, _ = driver.communicate(timeout=WAIT_S)
        assert driver.returncode == 0, said
    after = {record.number: record for record in storage.read_records(folder)}
    assert sorted(after) == list(range(6))
    assert {record.state for record in after.values()} <= {"COMPLETE", "PRUNED"}
    for number, record in before.items():
        assert after[number].architecture == record.architecture
        if record.state != "RUNNING":  # what had ended is not done again
            assert after[number].metrics == record.metrics
    assert {path.name for path in folder.models_dir.iterdir()}, "no network of the front came home"
