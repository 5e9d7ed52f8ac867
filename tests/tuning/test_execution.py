"""What Ray Tune makes of a ledger's trials, and what it is given to hand to its workers."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune import Trainable
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial

from dirprune.architecture import Architecture
from dirprune.records.folder import StudyFolder
from dirprune.study.space import Configuration
from dirprune.tuning.cluster import Resources, Slots, connect
from dirprune.tuning.execution import execute
from dirprune.tuning.ledger import Ledger
from dirprune.tuning.mends import keep_keys_from_ray_
from dirprune.tuning.reports import IMAGES, IS_FINAL, METRICS
from dirprune.tuning.searcher import MAX_START_S, LedgerScheduler, LedgerSearcher

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")


def test_no_key_of_a_store_goes_where_ray_logs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "a-key-of-tests")
    monkeypatch.setattr(class_cache, "ENV_VARS_TO_PROPAGATE", set(class_cache.ENV_VARS_TO_PROPAGATE))
    handed = (
        class_cache._ActorClassCache().get(type("Before", (Trainable,), {}))._default_options["runtime_env"]
    )
    assert "a-key-of-tests" in str(handed), "Ray hands over none: nothing is left to be kept from it"
    keep_keys_from_ray_()
    handed = (
        class_cache._ActorClassCache().get(type("After", (Trainable,), {}))._default_options["runtime_env"]
    )
    assert handed["env_vars"]
    assert "a-key-of-tests" not in str(handed)


class ShortTrials:
    """Accounts of trials that are all alike; they end when one has run elsewhere, or at their number.

    Args:
        folder: Where the study would be.
        number: Trials at most.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = StudyFolder(folder)
        self.number, self.started, self.places = number, 0, list[float]()

    @property
    def may_have_more(self) -> bool:
        return self.started < self.number and 1.0 not in self.places

    def next_configuration(self) -> Configuration | None:
        if not self.may_have_more:
            return None
        self.started += 1
        return Configuration(self.started, "sampler", Architecture({}), "magnitude", {}, {})

    def completed(self, number: int, metrics: Mapping[str, float]) -> None:
        self.places.append(metrics["is_elsewhere"])

    def is_preempted(self, number: int) -> bool:
        return False


class ShortTrial(Trainable):
    """A trial of a blink; away from the driver's machine, a worker takes many of them to start."""

    def setup(self, config: dict[str, Any], home: str = "") -> None:
        import ray

        self.is_elsewhere = float(ray.get_runtime_context().get_node_id() != home)
        time.sleep(5 * self.is_elsewhere)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def step(self) -> dict[str, Any]:
        time.sleep(0.2)
        return {IMAGES: 1, METRICS: [("is_elsewhere", self.is_elsewhere)], IS_FINAL: True, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Ray asks for one at the end; nothing needs it."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Ray gives it to a trial that is run again."""


class TrialOfADyingWorker(ShortTrial):
    """A trial whose worker dies once, while it takes up the second trial."""

    def setup(self, config: dict[str, Any], home: str = "", note: Path | None = None) -> None:
        super().setup(config, home)
        self.note = note

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        assert self.note is not None
        if not self.note.exists():
            self.note.touch()
            os._exit(1)
        return True


class Waiting:
    """A trial of Ray's, as far as a scheduler looks at it."""

    status = Trial.PENDING


@pytest.fixture
def two_nodes() -> Iterator[str]:
    """Yield the address of two nodes with room for one trial each."""
    from tests.small_cluster import SmallCluster

    cluster = SmallCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@pytest.mark.slow
def test_trials_shorter_than_the_start_of_a_worker_use_all_nodes(tmp_path: Path, two_nodes: str) -> None:
    import ray

    trials = ShortTrials(tmp_path, 300)
    with connect(Resources(two_nodes)) as slots:
        assert slots == Slots(2, {"CPU": 1.0})
        execute(cast("Ledger", trials), slots, ShortTrial, home=ray.get_runtime_context().get_node_id())
    assert 1.0 in trials.places
    assert 0.0 in trials.places
    assert len(trials.places) == trials.started


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_trial_whose_worker_was_lost_as_it_took_it_up_is_run_again(
    tmp_path: Path, ray_address: str
) -> None:
    import ray

    trials = ShortTrials(tmp_path, 3)
    with connect(Resources(ray_address, max_concurrent=1)) as slots:
        home = ray.get_runtime_context().get_node_id()
        execute(cast("Ledger", trials), slots, TrialOfADyingWorker, home=home, note=tmp_path / "died")
    assert (tmp_path / "died").exists()
    assert trials.places == [0.0] * 3


def test_in_a_long_queue_starts_of_workers_are_ended_no_more_often_than_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    scheduler = LedgerScheduler(cast("LedgerSearcher", None))
    queue = [Waiting() for _ in range(5)]
    controller = SimpleNamespace(get_live_trials=lambda: set(queue))
    chosen = []
    for second in range(200):  # each second a worker becomes free
        now = float(second)
        trial = scheduler.choose_trial_to_run(controller)
        if trial is not None:
            chosen.append(second)
            queue.remove(cast("Any", trial))
    assert len(chosen) == 3
    assert chosen[0] > MAX_START_S
    assert min(later - earlier for earlier, later in itertools.pairwise(chosen)) > MAX_START_S
