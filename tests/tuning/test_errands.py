"""What comes before the first trial is done where trials run, and goes on where a worker was lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dirprune.errors import ConfigurationError, StudyError
from dirprune.remote import RemoteFolder
from dirprune.study.dense import choose_data, obtain_dense
from dirprune.tuning import errands
from dirprune.tuning.cluster import Resources
from dirprune.tuning.errands import Errands
from tests.integration.toy_study import regression, spec, toy_data


def count(device: str, listen: Callable[[int, int], None], progress: Callable[[str, int, int], None]) -> int:
    for n_done in range(2001):
        progress("counting", n_done, 2000)
    listen(1, 2)
    return os.getpid()


@pytest.mark.parametrize("is_local", [True, False])
def test_a_function_runs_in_this_process_or_in_a_worker_and_is_heard_here(
    ray_address: str, is_local: bool
) -> None:
    reports: list[object] = []
    steps: list[int] = []
    with Errands(Resources(address="local" if is_local else ray_address), print) as place:
        pid = place(
            count,
            listen=lambda *said: reports.append(said),
            progress=lambda what, n_done, n_total: steps.append(n_done),
        )
    assert (pid == os.getpid()) == is_local
    assert reports == [(1, 2)]
    assert steps[0] == 0
    assert steps[-1] == 2000
    assert steps == sorted(steps)
    assert is_local or len(steps) < 1000  # the others were left out


def fail(what: str, device: str) -> None:
    if what == "ours":
        raise ConfigurationError("expected this, got that; try those")
    raise ZeroDivisionError("theirs")


def test_errors_arrive_as_they_are_and_others_in_one_line(ray_address: str) -> None:
    with Errands(Resources(address=ray_address), print) as place:
        with pytest.raises(ConfigurationError, match=r"^expected this, got that; try those$"):
            place(fail, "ours")
        with pytest.raises(StudyError, match="to prepare the study, got ZeroDivisionError: theirs;"):
            place(fail, "theirs")


def test_what_an_errand_waits_for_is_said(ray_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(errands, "NOTICE_S", 0.5)
    lines: list[str] = []
    n_cpus = len(os.sched_getaffinity(0))

    with Errands(Resources(address=ray_address, cpus_per_trial=n_cpus), lines.append) as place:
        place(lambda device: None)  # may take a while, as a process starts
        lines.clear()

        @ray.remote(num_cpus=n_cpus)
        class Other:
            def begin(self) -> None: ...

        other = Other.remote()
        ray.get(other.begin.remote())

        def say(line: str) -> None:
            lines.append(line)
            ray.kill(other)

        place.say = say
        place(lambda device: None)
    assert lines == [f"waiting for a node with what a trial needs: CPU {n_cpus}"]


@pytest.mark.parametrize("storage", [None, "storage"])
def test_the_dense_network_is_trained_by_a_worker_and_goes_on_when_it_is_lost(
    tmp_path: Path, ray_address: str, storage: str | None
) -> None:
    roles = toy_data(None, validation_from="train:0.1", seed=0)
    choice = choose_data(spec, None)
    whole = obtain_dense(spec, roles, choice, tmp_path / "whole")
    remote = RemoteFolder(str(tmp_path / storage)) if storage else None
    lost = tmp_path / "lost"

    def evaluation(outputs, targets):  # of a study's script, which travels with the study
        if lost.exists():
            lost.unlink()
            os._exit(1)
        return regression(outputs, targets)

    images: list[int] = []

    def listen(report, n_images):
        images.append(report.images)
        if report.images == 3600:
            lost.touch()

    with Errands(Resources(address=ray_address), print) as place:
        fragile = spec.changed(evaluation=evaluation)
        again = obtain_dense(
            fragile, roles, choice, tmp_path / "cut", listen=listen, place=place, remote=remote
        )
    assert not lost.exists()
    assert again.digest == whole.digest
    assert again.metrics == whole.metrics
    assert sorted(set(images)) == [900 * epoch for epoch in range(1, 11)]
    assert len(images) < 15  # it went on, not from the start
    assert not list(tmp_path.rglob("*.state.pt"))
    if storage:
        assert (tmp_path / storage).is_dir()
        assert not list((tmp_path / "cut" / "dense").glob("*.pt"))
