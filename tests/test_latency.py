"""Latency is measured on real networks, and its model orders architectures as their costs do."""

from __future__ import annotations

import json
import math
import platform
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dirprune import latency
from dirprune.cost import CostModel
from dirprune.errors import ConfigurationError
from dirprune.latency import (
    LatencyModel,
    describe_machine,
    fit_latency,
    measure_latency,
    measure_quietly,
    warm_up,
)
from dirprune.tracing import find_groups
from tests.networks_for_tests import SmallLeNet, build_case


class Sleeping(nn.Module):
    """Takes five milliseconds, and remembers in which mode it ran."""

    def forward(self, inputs: Tensor) -> Tensor:
        self.was_training = self.training
        time.sleep(0.005)
        return inputs


def test_latency_is_in_milliseconds_and_measured_in_evaluation_mode() -> None:
    network = Sleeping().train()
    latency = measure_latency(network, torch.zeros(1), n_runs=3)
    assert 5 <= latency.low_ms <= latency.median_ms <= latency.high_ms < 2500
    assert not network.was_training
    assert network.training


def test_warming_up_takes_its_time_and_its_passes() -> None:
    runs: list[float] = []
    began = time.perf_counter()
    warm_up(lambda: runs.append(time.perf_counter()), 3, 0.05)
    assert time.perf_counter() - began >= 0.05
    assert len(runs) > 3
    runs.clear()
    warm_up(lambda: runs.append(time.perf_counter()), 3, 0.0)
    assert len(runs) == 3


@pytest.mark.usefixtures("on_a_busy_device")
def test_one_channel_less_never_costs_more_and_one_in_each_group_costs_least() -> None:
    network, batch = build_case("lenet")
    network.eval()
    grouping = find_groups(network, batch)
    fitted = fit_latency(network, grouping, batch, n_measured=6)
    model = CostModel(network, grouping, batch).with_latency(fitted.constant_ms, fitted.rates_ms)
    full = dict(grouping.n_channels)

    def latency_ms(architecture: dict[str, int]) -> float:
        return model.costs(architecture).as_dict()["latency_ms"]

    assert 0 < latency_ms(dict.fromkeys(full, 1)) <= latency_ms(full)
    for name in full:
        assert latency_ms({**full, name: full[name] - 1}) <= latency_ms(full) + 1e-12


def test_macs_by_pair_add_up_to_the_macs() -> None:
    network = SmallLeNet().eval()
    batch = torch.zeros(2, 1, 14, 14)
    grouping = find_groups(network, batch)
    costs = CostModel(network, grouping, batch)
    architecture = {name: max(1, n // 2) for name, n in grouping.n_channels.items()}
    assert sum(costs.macs_by_pair(architecture)) == costs.costs(architecture).macs


class Unsteady(nn.Module):
    """Two convolutions that take longer at each second of their first passes."""

    def __init__(self, n_unsteady: float = math.inf) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)
        self.n_passes, self.n_unsteady = 0, n_unsteady

    def forward(self, inputs: Tensor) -> Tensor:
        self.n_passes += 1
        self.took_s = 0.06 if self.n_passes % 2 and self.n_passes <= self.n_unsteady else 0.01
        time.sleep(self.took_s)
        return self.last(self.first(inputs))


def test_a_device_whose_passes_differ_widely_is_refused_as_busy() -> None:
    with pytest.raises(
        ConfigurationError, match=r"expected a quiet device, got passes of .* ms \(quartiles\) on cpu"
    ):
        measure_quietly(Unsteady(), torch.zeros(2, 1, 8, 8), n_runs=6)


def test_a_device_that_is_busy_while_architectures_are_measured_is_said_to_be() -> None:
    network, batch = Unsteady(), torch.zeros(2, 1, 8, 8)
    with pytest.raises(ConfigurationError, match=r"expected a quiet device, got passes of .* on cpu"):
        fit_latency(network, find_groups(network, batch), batch, n_measured=2)


def test_an_architecture_is_measured_again_once_the_device_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_what_it_says(network: Unsteady, inputs: Tensor) -> float:  # whatever else this machine does
        network(inputs)
        return 1000 * network.took_s

    monkeypatch.setattr(latency, "time_pass", time_what_it_says)
    network, batch = Unsteady(30), torch.zeros(2, 1, 8, 8)
    grouping = find_groups(network, batch)
    fitted = fit_latency(network, grouping, batch, n_measured=2)
    model = CostModel(network, grouping, batch).with_latency(fitted.constant_ms, fitted.rates_ms)
    assert model.costs(grouping.n_channels).as_dict()["latency_ms"] < 30


def test_a_processor_is_told_from_others_of_its_kind() -> None:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    assert describe_machine("cpu")[2] in (models or [platform.processor(), platform.machine()])


@pytest.mark.usefixtures("on_a_busy_device")
def test_a_model_of_latency_is_the_same_after_a_round_through_json() -> None:
    network, batch = build_case("lenet")
    model = fit_latency(network.eval(), find_groups(network, batch), batch, n_measured=10)
    assert 0 <= model.error < float("inf")
    assert model.setting["batch_size"] == len(batch)
    assert LatencyModel.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_a_model_of_latency_of_another_network_is_refused() -> None:
    network, batch = build_case("lenet")
    costs = CostModel(network, find_groups(network, batch), batch)
    with pytest.raises(ConfigurationError, match="measured on another network"):
        costs.with_latency(0.1, [1e-6])


def test_only_what_is_in_float32_is_converted() -> None:
    network = nn.BatchNorm1d(3)
    network.register_buffer("turns", torch.full((3,), 1j))
    assert latency.convert_(network, torch.bfloat16) is network
    found = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    assert found.pop("turns") == torch.complex64
    assert found.pop("num_batches_tracked") == torch.int64
    assert set(found.values()) == {torch.bfloat16}
    assert torch.equal(network.turns, torch.full((3,), 1j))  # type: ignore[arg-type]
