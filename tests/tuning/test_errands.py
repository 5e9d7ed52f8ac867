"""What comes before the first trial is done where trials run, and goes on where a worker was lost."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
from torch import Tensor

from dirprune.errors import ConfigurationError, StudyError
from dirprune.remote import RemoteFolder
from dirprune.study.dense import choose_data, obtain_dense
from dirprune.tuning import errands
from dirprune.tuning.cluster import Resources, count_cpus
from dirprune.tuning.errands import Errands
from tests.integration.toy_study import regression, spec, toy_data
from tests.small_cluster import SmallCluster

N_CPUS = count_cpus() + 1  # more than this machine has


@pytest.fixture(autouse=True)
def no_gpu_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="module")
def larger() -> Iterator[Resources]:
    """A cluster whose trials have more cores than this machine; it also says that it has a GPU."""
    head = {"num_cpus": N_CPUS, "num_gpus": 1, "include_dashboard": False}
    cluster = SmallCluster(initialize_head=True, head_node_args=head)
    try:
        yield Resources(address=cluster.address, cpus_per_trial=N_CPUS, gpus_per_trial=0)
    finally:
        cluster.shutdown()


def count(device: str, listen: Callable[[int, int], None], progress: Callable[[str, int, int], None]) -> int:
    for n_done in range(2001):
        progress("counting", n_done, 2000)
    logging.getLogger("dirprune.training").warning("%d images left out", 2)
    listen(1, 2)
    return os.getpid()


@pytest.mark.parametrize(
    "place_of_it",
    [
        "local",
        "no more cores",
        *(pytest.param(what, marks=pytest.mark.slow) for what in ("more cores", "a GPU")),
    ],
)
def test_a_function_runs_here_unless_a_worker_has_more_and_is_heard_here(
    larger: Resources, place_of_it: str, caplog: pytest.LogCaptureFixture
) -> None:
    resources = {
        "local": Resources(),
        "no more cores": Resources(address=larger.address, gpus_per_trial=0),
        "more cores": larger,
        "a GPU": Resources(address=larger.address),
    }[place_of_it]
    reports: list[object] = []
    steps: list[int] = []
    with Errands(resources, print) as place:
        pid = place(
            count,
            listen=lambda *said: reports.append(said),
            progress=lambda what, n_done, n_total: steps.append(n_done),
        )
    is_here = place_of_it in ("local", "no more cores")
    assert (pid == os.getpid()) == is_here
    assert reports == [(1, 2)]
    assert steps[0] == 0
    assert steps[-1] == 2000
    assert steps == sorted(steps)
    assert is_here or len(steps) < 1000  # the others were left out
    assert caplog.messages == ["2 images left out"]


def fail(what: str, device: str) -> None:
    if what == "ours":
        raise ConfigurationError("expected this, got that; try those")
    if what == "theirs":
        raise ZeroDivisionError("in a loss")
    os._exit(1)


@pytest.mark.slow
def test_errors_arrive_as_they_are(larger: Resources) -> None:
    with Errands(larger, print) as place:
        with pytest.raises(ConfigurationError, match=r"^expected this, got that; try those$"):
            place(fail, "ours")
        with pytest.raises(ZeroDivisionError, match="in a loss"):
            place(fail, "theirs")


@pytest.mark.slow
def test_a_worker_that_is_lost_again_and_again_ends_in_a_line(larger: Resources) -> None:
    lines: list[str] = []
    with (
        Errands(larger, lines.append) as place,
        pytest.raises(StudyError, match="expected a worker of the cluster to prepare the study, got"),
    ):
        place(fail, "lost")
    assert lines == ["a worker that prepared the study was lost; another one goes on"] * 3


@pytest.mark.slow
def test_a_node_that_does_not_see_the_study_s_folder_is_named(larger: Resources, tmp_path: Path) -> None:
    with (
        Errands(larger, print, tmp_path / "elsewhere") as place,
        pytest.raises(StudyError, match=r"^node .* does not see .*elsewhere, where the study's files lie"),
    ):
        place(fail, "ours")


@pytest.mark.slow
def test_what_an_errand_waits_for_is_said(larger: Resources, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "NOTICE_S", 0.5)
    lines: list[str] = []
    with Errands(larger, lines.append) as place:
        place(lambda device: None)  # may take a while, as a process starts
        lines.clear()

        @ray.remote(num_cpus=N_CPUS)
        class Other:
            def begin(self) -> None: ...

        other = Other.remote()
        ray.get(other.begin.remote())

        def say(line: str) -> None:
            lines.append(line)
            ray.kill(other)

        place.say = say
        place(lambda device: None)
    assert lines == [f"waiting for a node with what a worker of a trial needs: CPU={N_CPUS}"]


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "storage"])
def test_the_dense_network_is_trained_by_a_worker_and_goes_on_when_it_is_lost(
    tmp_path: Path, larger: Resources, storage: str | None
) -> None:
    roles = toy_data(None, validation_from="train:0.1", seed=0)
    choice = choose_data(spec, None)
    whole = obtain_dense(spec, roles, choice, tmp_path / "whole")
    remote = RemoteFolder(str(tmp_path / storage)) if storage else None
    calls, lost = tmp_path / "calls", tmp_path / "lost"

    def evaluation(outputs: Tensor, targets: Tensor) -> dict[str, float]:
        """End the worker once, in its fifth epoch; it travels with the study."""
        with calls.open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len(calls.read_text().splitlines()) == 5 and not lost.exists():
            lost.touch()
            os._exit(1)
        return regression(outputs, targets)

    images: list[int] = []
    with Errands(larger, print) as place:
        fragile = spec.changed(evaluation=evaluation)
        again = obtain_dense(
            fragile,
            roles,
            choice,
            tmp_path / "cut",
            listen=lambda report, n_images: images.append(report.images),
            place=place,
            remote=remote,
        )
    assert lost.exists()
    assert str(os.getpid()) not in calls.read_text().split()
    assert images == [900 * epoch for epoch in range(1, 11)]
    assert again.digest == whole.digest
    assert again.metrics == whole.metrics
    assert not list(tmp_path.rglob("*.state.pt"))
    assert (storage is None) == (not (tmp_path / "storage").exists())
