"""Latencies on a cluster are measured on GPUs that nobody else holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray
from torch import nn

from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.study.latency import LatencyOptions
from dirprune.tuning import measuring
from dirprune.tuning.cluster import Resources, Slots
from dirprune.tuning.measuring import choose_where, with_whole_gpus


@pytest.mark.parametrize(
    ("bundle", "whole"),
    [
        ({"CPU": 1.0, "GPU": 0.25}, {"CPU": 1.0, "GPU": 1.0}),
        ({"CPU": 0.5, "GPU": 1.0, "A100": 0.5}, {"CPU": 0.5, "GPU": 1.0, "A100": 0.5}),
        ({"CPU": 0.5}, {"CPU": 0.5}),
    ],
)
def test_of_gpus_whole_ones_are_taken(bundle: dict[str, float], whole: dict[str, float]) -> None:
    assert with_whole_gpus(bundle) == whole


def test_a_measurement_holds_a_whole_gpu_and_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connect(resources: Resources) -> Iterator[Slots]:
        yield Slots(4, {"CPU": 0.5, "GPU": 0.25})

    monkeypatch.setattr(measuring, "connect", connect)
    monkeypatch.setattr(
        measuring, "measure_here", lambda *given: ray.get_runtime_context().get_assigned_resources()
    )
    monkeypatch.setattr(measuring, "NOTICE_S", 0.5)
    given = (nn.Linear(2, 2), Grouping(()), (2,), LatencyOptions())
    measure = choose_where(Resources(address="auto", gpus_per_trial=0.25))
    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    try:
        monkeypatch.setattr(measuring, "PATIENCE_S", 60.0)
        assert measure(*given)["GPU"] == 1.0  # type: ignore[index]  # in place of a model

        @ray.remote(num_cpus=0.5, num_gpus=0.25)
        class Trial:
            def begin(self) -> None: ...

        other = Trial.remote()
        ray.get(other.begin.remote())
        monkeypatch.setattr(measuring, "PATIENCE_S", 0.5)
        with pytest.raises(
            ConfigurationError, match="expected a whole GPU to measure latencies on, got none"
        ):
            measure(*given)
    finally:
        ray.shutdown()
