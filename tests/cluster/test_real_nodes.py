"""`ray up` and `ray submit` of cluster/onprem.yaml itself; nodes are lost and added."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from dirprune.records.models import ARCHITECTURE, load_model
from dirprune.records.tables import load_front
from dirprune.tuning import storage
from tests.cluster.machines import find_missing, pretend_version
from tests.cluster.rehearsal import CLUSTER_FILE, Rehearsal, lose_and_gain, rehearse

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(find_missing()), reason=f"needs machines of its own: {find_missing()}"),
]
STUDY = ["--train-images", "10000", "--epochs", "3", "--halving", "none", "--dense-epochs", "1"]
STUDY += ["--warm-starts", "0"]


def test_a_study_survives_lost_nodes_and_a_lost_driver_and_uses_new_nodes(
    tmp_path: Path, mnist_root: Path
) -> None:
    study = ["--data", str(mnist_root), *STUDY]
    with rehearse(tmp_path) as rehearsal:
        said = rehearsal.up()
        assert "will not launch any workers" not in said
        refuse_what_only_the_head_sees(rehearsal, study)
        lose_and_gain(rehearsal, *study, "--trials", "1000")
        rehearsal.cut_driver()
        n_trials = len(storage.read_records(rehearsal.folder)) + 1
        said = rehearsal.run_submitted(*study, "--resume", "--trials", str(n_trials))
        assert "Pareto front:" in said
        check_accounts(rehearsal, n_trials)
        check_home(rehearsal)


def refuse_what_only_the_head_sees(rehearsal: Rehearsal, study: list[str]) -> None:
    """A folder of the head alone is refused before anything is trained, with the name of a node."""
    with pytest.raises(RuntimeError) as refused:
        rehearsal.run_submitted(*study, "--output", "/run/own")
    said = str(refused.value)
    worker = rehearsal.workers[0].address
    assert f"error: expected files that all nodes share in /run/own, node {worker} has none" in said, said
    assert "training the dense network" not in said
    assert "Traceback" not in said


def check_accounts(rehearsal: Rehearsal, n_trials: int) -> None:
    """Each trial ended once, no loss failed one, all machines worked, models and tables have come home."""
    folder = rehearsal.folder
    records = storage.read_records(folder)
    assert [record.number for record in records] == list(range(n_trials))
    assert {record.state for record in records} <= {"COMPLETE", "PRUNED"}
    starts = rehearsal.starts()
    assert len(starts) > n_trials, "nothing was lost"
    machines = {machine.name for machine in [rehearsal.head, *rehearsal.workers]}
    assert {start["machine"] for start in starts} == machines
    front = folder.front_csv.read_text(encoding="utf-8").splitlines()
    assert len(front) > 2
    assert all((model / ARCHITECTURE).is_file() for model in folder.models_dir.iterdir())
    assert not list(folder.checkpoints_dir.glob("*"))


def check_home(rehearsal: Rehearsal) -> None:
    """On the laptop, which has no folder of results yet, the study is whole: its front and its models."""
    expected = load_front(rehearsal.folder)
    home = rehearsal.bring_home()
    rehearsal.folder.root.rename(rehearsal.folder.root.with_name("away"))
    said = rehearsal.laptop.run("python", "-m", "dirprune", "front", f"output/{home.root.name}")
    assert f"files: output/{home.root.name}/front.csv" in said
    found = load_front(home)
    assert [(point.trial, point.metrics) for point in found] == [
        (point.trial, point.metrics) for point in expected
    ]
    for point in found:
        network = load_model(point.model_dir)
        assert sum(parameter.numel() for parameter in network.parameters()) == point.metrics["parameters"]


def test_a_node_with_another_ray_is_named_by_the_study_that_misses_it(tmp_path: Path) -> None:
    with rehearse(tmp_path) as rehearsal:
        worker = rehearsal.workers[0]
        pretend_version(worker.home / "dirprune", "ray", "2.59.0")
        rehearsal.laptop.run("ray", "up", "--yes", "--no-config-cache", CLUSTER_FILE, timeout=300)
        log = "/tmp/ray/session_latest/logs/monitor.out"
        refused = f"node {worker.name} has 2.59.0"
        rehearsal.wait("the refusal", lambda: refused in rehearsal.head.run(f"cat {log} || true"))
        said = rehearsal.run_submitted("--trials", "1", "--train-images", "500", *STUDY[2:])
        (named,) = [line for line in said.splitlines() if line.startswith("not in the cluster: ")]
        assert worker.address in named
        assert f"expected ray {version('ray')} on every node" in named
        assert refused in named
        assert not rehearsal.has_ray(worker)
        assert "Pareto front:" in said
