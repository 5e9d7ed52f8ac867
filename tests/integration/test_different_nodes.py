"""A trial that needs what only some nodes have runs on these alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dirprune.records.folder import StudyFolder
from dirprune.tuning import storage
from tests.integration.toy_study import LATENCY_BATCH

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SCRIPT = Path(__file__).with_name("toy_study.py")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the networks leave notes."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture
def seen(notes: Path) -> Path:
    """The file that a network on the node with an A100 touches when it sees a batch of `LATENCY_BATCH`."""
    (notes / "seen").unlink(missing_ok=True)
    return notes / "seen"


@pytest.fixture(scope="module")
def address(notes: Path) -> Iterator[str]:
    """Yield the address of a cluster of two nodes: on the one with more CPUs, trials misbehave."""
    from tests.small_cluster import SmallCluster

    cluster = SmallCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "include_dashboard": False, "env_vars": {"TOY_TROUBLE": str(notes)}},
    )
    try:
        cluster.add_node(num_cpus=2, resources={"A100": 1}, env_vars={"TOY_SEEN": str(notes / "seen")})
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


def run_script(address: str, output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the study on a cluster."""
    return subprocess.run(
        [sys.executable, SCRIPT, "--ray-address", address, "--output", output, "--no-tracking", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_trials_run_where_their_resources_are_and_nowhere_else(
    address: str, seen: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    refused = run_script(address, output, "--resources-per-trial", "CPU=2,A100=2")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith(
        "error: one trial needs CPU=2,GPU=0,A100=2, the nodes of the cluster have CPU=4,GPU=0,A100=0; "
        "CPU=2,GPU=0,A100=1;"
    )
    assert not output.exists()
    done = run_script(
        address, output, "--trials", "4", "--resources-per-trial", "CPU=1,memory=64MiB,A100=0.5"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    records = storage.read_records(StudyFolder(output / "toy"))
    assert not seen.exists()
    assert len(records) == 4
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}, [r.reason for r in records]


def test_latencies_are_measured_where_trials_run(address: str, seen: Path, tmp_path: Path) -> None:
    wanted = ("--objectives", "val_mae:minimize,latency_ms:minimize", "--reference-point", "val_mae=3")
    few = ("--trials", "1", "--dense-epochs", "1", "--epochs", "1", "--rungs", "0")
    where = ("--resources-per-trial", "CPU=1,A100=0.5", "--latency-batch", str(LATENCY_BATCH))
    done = run_script(address, tmp_path / "out", *wanted, *few, *where)
    said = done.stdout + done.stderr
    is_busy = "expected a quiet device" in said  # a machine without an idle core is refused before any pass
    assert seen.exists() or is_busy, said
    assert done.returncode == 0 or "device busy" in said or is_busy, said
