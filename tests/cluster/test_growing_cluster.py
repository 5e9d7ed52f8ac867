"""A study on a cluster that has no worker yet: Ray's own autoscaler starts them as trials ask for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from dirprune.tuning.growth import DEFINITION
from tests.cluster.test_local_ray import find_ports, wait_until_it_listens

SCRIPT = Path(__file__).parents[1] / "integration" / "toy_study.py"
NOTHING_TO_RUN = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def write_definition(home: Path, port: int) -> Path:
    """Write what the launcher leaves on a head; the autoscaler starts workers as raylets of this machine."""
    definition = {
        "cluster_name": "growing",
        "max_workers": 2,
        "upscaling_speed": 100,
        "idle_timeout_minutes": 5,
        "provider": {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}"},
        "auth": {},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in NOTHING_TO_RUN},
    }
    path = home / DEFINITION.name
    path.write_text(yaml.safe_dump(definition))
    return path


@contextmanager
def head(home: Path, port: int, environment: Mapping[str, str]) -> Iterator[None]:
    """Run a head without CPUs, and its autoscaler."""
    command = ["ray", "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--port", str(port)]
    command += ["--num-cpus", "0", "--include-dashboard", "false"]
    command += ["--autoscaling-config", str(write_definition(home, port))]
    with (home / "ray.log").open("w") as log:
        ray = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until_it_listens(port, ray)
        yield
    finally:
        os.killpg(ray.pid, signal.SIGTERM)
        ray.wait(60)
        wait_until_silent(port)


def wait_until_silent(port: int) -> None:
    """Return when the head is gone, without which no worker stays."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            return
        time.sleep(0.2)
    pytest.fail("Ray did not end")


def test_study_begins_before_there_are_workers_and_runs_on_those_that_come(tmp_path: Path) -> None:
    (port,) = find_ports(1)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "OMP_NUM_THREADS": "1",
    }
    study = [sys.executable, str(SCRIPT), "--ray-address", f"127.0.0.1:{port}", "--no-tracking"]
    with head(tmp_path, port, environment):
        done = subprocess.run(
            [*study, "--output", str(tmp_path / "out"), "--trials", "5"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    records = storage.read_records(StudyFolder(tmp_path / "out" / "toy"))
    assert len(records) == 5
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
