"""Latency is measured on real networks, and its model orders architectures as their costs do."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from dirprune.cost import CostModel
from dirprune.latency import LatencyModel, measure_latency_ms
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
    assert 5 <= measure_latency_ms(network, torch.zeros(1), n_runs=3) < 2500
    assert not network.was_training
    assert network.training


def test_one_channel_less_never_costs_more_and_one_in_each_group_costs_least() -> None:
    network, batch = build_case("lenet")
    network.eval()
    grouping = find_groups(network, batch)
    model = LatencyModel(network, grouping, batch, n_measured=6)
    full = dict(grouping.n_channels)
    assert 0 < model.latency_ms(dict.fromkeys(full, 1)) <= model.latency_ms(full)
    for name in full:
        assert model.latency_ms({**full, name: full[name] - 1}) <= model.latency_ms(full) + 1e-12


def test_macs_by_pair_add_up_to_the_macs() -> None:
    network = SmallLeNet().eval()
    batch = torch.zeros(2, 1, 14, 14)
    grouping = find_groups(network, batch)
    costs = CostModel(network, grouping, batch)
    architecture = {name: max(1, n // 2) for name, n in grouping.n_channels.items()}
    assert sum(costs.macs_by_pair(architecture)) == costs.costs(architecture).macs
