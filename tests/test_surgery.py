"""Compact networks are the masked ones with the zeros gone, and the check notices when they are not."""

from __future__ import annotations

import copy
import dataclasses
import random

import pytest
import torch
import torchvision
from torch import Tensor, nn

from dirprune.errors import ArchitectureError
from dirprune.groups import Grouping, Slot
from dirprune.networks.lenet import LeNet5
from dirprune.surgery import check_masked_equals_compact, compact, randomised_copy
from dirprune.switches import mask, switched
from dirprune.tracing import find_groups
from tests.networks_for_tests import CASES, build_case
from tests.test_groups import assert_same, take_snapshot


def draw_kept(grouping: Grouping, seed: int) -> dict[str, list[int]]:
    rng = random.Random(seed)
    return {name: rng.sample(range(n), rng.randint(1, n)) for name, n in grouping.n_channels.items()}


def check(network: nn.Module, grouping: Grouping, inputs: Tensor, seed: int = 0) -> str | None:
    generator = torch.Generator().manual_seed(seed)
    random_network = randomised_copy(network, generator)
    return check_masked_equals_compact(random_network, grouping, inputs, generator=generator)


def randomise_batch_norm(network: nn.Module) -> None:
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data = torch.rand(tensor.shape, generator=generator).to(tensor) + 0.5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", CASES)
def test_masked_equals_compact_with_all_groups_cut_at_once(name: str, seed: int) -> None:
    network, inputs = build_case(name)
    network.double().eval()
    inputs = inputs.double()
    randomise_batch_norm(network)
    grouping = find_groups(network, inputs)
    assert grouping.names == CASES[name][2]
    kept = draw_kept(grouping, seed)
    small = compact(network, grouping, kept, inputs)
    with switched(network, grouping, mask(grouping, kept)):
        masked = network(inputs)
    torch.testing.assert_close(small(inputs), masked, rtol=1e-9, atol=1e-12)


def test_neighbouring_groups_of_lenet5_are_cut_by_their_original_indices() -> None:
    network = LeNet5().double().eval()
    inputs = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0)).double()
    grouping = find_groups(network, inputs)
    kept = {"conv1": [9, 1, 4], "conv2": [0, 19, 7, 8], "linear1": [99, 50], "linear2": [3, 24, 0]}
    small = compact(network, grouping, kept, inputs)
    assert torch.equal(small.conv2.weight, network.conv2.weight[[0, 7, 8, 19]][:, [1, 4, 9]])
    assert torch.equal(small.linear1.weight[:, :16], network.linear1.weight[[50, 99], :16])
    assert torch.equal(small.linear1.weight[:, 16:32], network.linear1.weight[[50, 99], 7 * 16 : 8 * 16])
    assert torch.equal(small.bn2.running_var, network.bn2.running_var[[0, 7, 8, 19]])
    assert (small.conv1.out_channels, small.bn1.num_features, small.linear1.in_features) == (3, 3, 64)
    with switched(network, grouping, mask(grouping, kept)):
        torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-9, atol=1e-12)


def test_resnet18_keeps_all_its_groups_and_its_compact_network_equals_the_masked_one() -> None:
    network = torchvision.models.resnet18(weights=None).double().eval()
    inputs = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    grouping = find_groups(network, inputs)
    assert grouping.refused == {}
    assert len(grouping.groups) == 12  # 4 stages coupled by their additions, 8 inner convolutions
    kept = {name: range(0, n, 2) for name, n in grouping.n_channels.items()}
    small = compact(network, grouping, kept, inputs)
    with switched(network, grouping, mask(grouping, kept)):
        torch.testing.assert_close(small(inputs), network(inputs), rtol=1e-6, atol=1e-9)


def test_cutting_leaves_the_dense_network_as_it_was_and_keeps_mode_and_frozen_parameters() -> None:
    network, inputs = build_case("depthwise")
    network(inputs).sum().backward()
    network.train()
    network.bn_expand.eval()
    network.expand.requires_grad_(False)
    before = take_snapshot(network)
    grouping = find_groups(network, inputs)
    small = compact(network, grouping, {"expand": [0, 3], "project": [1]}, inputs)
    assert_same(before, take_snapshot(network))
    assert [module.training for module in small.modules()] == before["modes"]
    assert [parameter.requires_grad for parameter in small.parameters()] == before["trainable"]
    assert all(parameter.grad is None for parameter in small.parameters())
    assert torch.equal(small.bn_expand.num_batches_tracked, network.bn_expand.num_batches_tracked)
    with torch.no_grad():
        small.project.weight.fill_(0.0)
    assert_same(before, take_snapshot(network))


def test_compact_network_trains() -> None:
    network, inputs = build_case("lenet")
    small = compact(network, find_groups(network, inputs), {"conv1": [0, 2], "linear1": [1]}, inputs)
    small.train()(inputs).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_keeping_every_channel_is_the_dense_network() -> None:
    network, inputs = build_case("residual")
    grouping = find_groups(network, inputs)
    small = compact(network, grouping, {name: range(n) for name, n in grouping.n_channels.items()}, inputs)
    torch.testing.assert_close(small.state_dict(), network.state_dict(), rtol=0, atol=0)


def test_groups_of_another_network_are_refused() -> None:
    network, inputs = build_case("lenet")
    wider = LeNet5()
    grouping = find_groups(network, inputs)
    with pytest.raises(ArchitectureError, match="expected 4 channels at 'conv1', got 10; try the groups"):
        compact(wider, grouping, {"conv1": [0]}, torch.zeros(1, 1, 28, 28))
    scaled, images = build_case("scaled")
    groups = find_groups(scaled, images)
    scaled.scale = nn.Parameter(torch.ones(7, 1, 1))
    with pytest.raises(ArchitectureError, match="expected 5 channels at 'scale'"):
        compact(scaled, groups, {"conv": [0]}, images)
    with pytest.raises(ArchitectureError, match="between 0 and 3"):
        compact(network, grouping, {"conv1": [4]}, inputs)


def test_compact_network_that_cannot_run_is_not_handed_out() -> None:
    network, inputs = build_case("mlp")
    grouping = find_groups(network, inputs)
    broken = dataclasses.replace(grouping["0"], consumers=())
    with pytest.raises(ArchitectureError, match="expected a compact network that runs, got RuntimeError"):
        compact(network, Grouping((broken,)), {"0": [0]}, inputs)


@pytest.mark.parametrize("name", CASES)
def test_check_accepts_each_group_alone(name: str) -> None:
    network, inputs = build_case(name)
    before = take_snapshot(network)
    for group in find_groups(network, inputs).groups:
        assert check(network, Grouping((group,)), inputs) is None
    assert_same(before, take_snapshot(network))


def test_check_notices_channels_that_belong_to_other_indices() -> None:
    network, inputs = build_case("lenet")
    grouping = find_groups(network, inputs)
    group = grouping["conv2"]
    (slot,) = group.consumers
    swapped = Slot(slot.module, tuple(5 - channel for channel in slot.channel_of))
    wrong = dataclasses.replace(group, consumers=(swapped,))
    reason = check(network, Grouping((wrong,)), inputs)
    assert reason is not None
    assert reason.startswith("masked and compact outputs differ")


def test_check_notices_a_forgotten_batch_norm_bias_even_where_the_weights_hide_it() -> None:
    class _PaddedBefore(nn.Module):
        """Batch norm after a padded sum over channels: its shift of a removed channel stays in the others."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 1)
            self.bn = nn.BatchNorm2d(4)
            self.second = nn.Conv2d(4, 3, 1)
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, images: Tensor) -> Tensor:
            hidden = self.bn(self.first(images))
            return self.head(self.second(hidden - hidden.mean(dim=1, keepdim=True)))

    network = _PaddedBefore()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()  # as given, every output is zero and nothing would show
    grouping = find_groups(network, torch.zeros(2, 1, 5, 5))
    assert grouping.names == ("second",)
    assert list(grouping.refused) == ["first"]


def test_check_refuses_what_it_cannot_see() -> None:
    class _Ignoring(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 3)
            self.head = nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            unused = self.second(self.first(inputs))
            return self.head(inputs) + 0.0 * unused.sum(dim=1, keepdim=True)

    grouping = find_groups(_Ignoring(), torch.zeros(2, 4))
    assert grouping.names == ()
    assert grouping.refused["first"].endswith("so cutting cannot be checked")


def test_check_refuses_an_output_that_is_not_finite() -> None:
    class _Logarithm(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(inputs).log()

    network = _Logarithm(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 20))
    assert find_groups(network, torch.zeros(2, 4)).refused == {
        "0": "the output is not finite, so cutting cannot be checked"
    }


def test_the_seed_of_the_check_matters_and_reproduces() -> None:
    network, inputs = build_case("lenet")
    group = find_groups(network, inputs)["conv2"]
    (slot,) = group.consumers
    shifted = Slot(slot.module, slot.channel_of[4:] + slot.channel_of[:4])
    wrong = Grouping((dataclasses.replace(group, consumers=(shifted,)),))
    assert check(network, wrong, inputs, seed=1) == check(copy.deepcopy(network), wrong, inputs, seed=1)
    assert check(network, wrong, inputs, seed=1) != check(network, wrong, inputs, seed=2)
