"""Trials that several workers train together: the same result, whatever happens to one of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dirprune.parallel import Share
from dirprune.records.events import read_events
from dirprune.records.folder import StudyFolder
from dirprune.records.record import TrialRecord
from dirprune.study.spec import StudySpec
from dirprune.tuning import storage
from dirprune.tuning.cluster import Resources
from dirprune.tuning.options import RunOptions
from dirprune.tuning.run import run_study
from tests.integration.crew_study import DIES_AT, Greedy, spec

# On a busy machine the processes of one test's Ray may end after the next one has begun.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
N_DIES = 2


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a network leaves a note when it has ended its process."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def address(notes: Path) -> Iterator[str]:
    """Yield the address of a Ray on which networks misbehave at the second of several workers."""
    from tests.small_cluster import SmallCluster

    trouble = {"CREW_TROUBLE": str(notes), "CREW_MEMORY": "small"}
    cluster = SmallCluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, "env_vars": trouble}
    )
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def run(address: str, output: Path, n_workers: int, study: StudySpec = spec) -> list[TrialRecord]:
    resources = Resources(address, workers_per_trial=n_workers)
    run_study(study, RunOptions(output, resources=resources), say=lambda _: None)
    return storage.read_records(StudyFolder(output / spec.name))


def attempts(output: Path, number: int) -> list[dict[str, Any]]:
    events = read_events(StudyFolder(output / spec.name).events(number))
    return [event for event in events if event["event"] == "started"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_train_what_one_does_also_after_one_of_them_was_lost(tmp_path, address, notes):
    alone = run(address, tmp_path / "alone", 1)
    assert [record.state for record in alone] == ["COMPLETE"] * 4
    together = run(address, tmp_path / "together", 2)
    assert (notes / "died").exists()
    lost, goes_on = attempts(tmp_path / "together", N_DIES)
    assert lost["resumed_from"] is None
    assert goes_on["resumed_from"] > 0
    assert [record.state for record in together] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert together[1].reason == "PeerError: ValueError: no room for six channels"
    assert together[N_DIES].architecture["first"] == DIES_AT
    for one, two in zip(alone, together, strict=True):
        same = 1 if two.state == "FAIL" else len(one.curve)
        for (images, metrics), (images_again, again) in zip(one.curve[:same], two.curve[:same], strict=True):
            assert images == images_again
            assert again["val_loss"] == pytest.approx(metrics["val_loss"], rel=1e-4)
            assert again.get("train_loss", 0) == pytest.approx(metrics.get("train_loss", 0), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_out_of_memory_at_one_worker_lets_all_compute_in_halves_and_learn_the_same(tmp_path, address):
    greedy = replace(spec, network=Greedy, trials=2, epochs=2)
    alone = run(address, tmp_path / "alone", 1, greedy)
    together = run(address, tmp_path / "together", 2, greedy)
    for one, two in zip(alone, together, strict=True):
        assert two.state == "COMPLETE"
        for (images, metrics), (images_again, again) in zip(one.curve, two.curve, strict=True):
            assert images == images_again
            assert again["val_loss"] == pytest.approx(metrics["val_loss"], rel=1e-4)
    assert len(attempts(tmp_path / "together", 1)) == 2


@pytest.mark.parametrize(("n_images", "n_workers"), [(128, 4), (17, 2), (3, 3), (2, 3)])
def test_shares_make_up_the_batch(n_images: int, n_workers: int) -> None:
    shares = [Share(rank, n_workers).of(n_images) for rank in range(n_workers)]
    weights = [0.0] * n_images
    for part, n_divided in shares:
        for place in range(n_images)[part]:
            weights[place] += 1 / n_divided
    assert weights == pytest.approx([1 / n_images] * n_images)
