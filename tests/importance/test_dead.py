"""Dead channels, found on a network small enough to see."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance import ScoringContext
from dirprune.importance.dead import MAX_BATCH, find_dead_channels
from dirprune.tasks import make_task
from tests.importance.cases import identity, make_context, make_split, score, silence_
from tests.networks_for_tests import SmallLeNet


def find_dead(network: nn.Module, grouping: Grouping, inputs: Tensor) -> list[bool]:
    """Return which channels of the first group are dead on some inputs."""
    split = make_split(inputs, torch.zeros(len(inputs)))
    context = ScoringContext(network.requires_grad_(False), grouping, split, identity, make_task())
    return find_dead_channels(context)[grouping.names[0]].tolist()


def test_channel_is_dead_when_never_reached_or_never_used() -> None:
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 1, bias=False)).eval()
    network[0].weight.data = torch.diag(torch.tensor([1.0, 0.0, 1.0, 1.0]))  # channel 1 is never reached
    network[2].weight.data = torch.tensor([[1.0, 1.0, 0.0, 1.0]])  # channel 2 is never used
    own = (0, 1, 2, 3)
    grouping = Grouping((ChannelGroup("0", 4, (Slot("0", own),), (Slot("2", own),)),))
    positive, negative = (
        torch.ones(2, 4),
        torch.tensor([[1.0, 1.0, 1.0, -1.0]]),
    )  # of channel 3 ReLU leaves nothing
    expected = [False, True, True, False]
    assert find_dead(network, grouping, positive) == expected
    assert find_dead(network, grouping, negative) == [False, True, True, True]
    assert find_dead(network, grouping, torch.cat([negative.repeat(MAX_BATCH, 1), positive])) == expected


def test_channel_used_by_one_of_two_consumers_is_live() -> None:
    network = nn.ModuleDict({"make": nn.Linear(2, 2), "left": nn.Linear(2, 1), "right": nn.Linear(2, 1)})
    network["left"].weight.data = torch.tensor([[1.0, 0.0]])
    network["right"].weight.data = torch.tensor([[1.0, 1.0]])

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = network

        def forward(self, inputs: Tensor) -> Tensor:
            hidden = self.parts["make"](inputs)
            return self.parts["left"](hidden) + self.parts["right"](input=hidden)

    consumers = (Slot("parts.left", (0, 1)), Slot("parts.right", (0, 1)))
    grouping = Grouping((ChannelGroup("parts.make", 2, (Slot("parts.make", (0, 1)),), consumers),))
    inputs = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    assert find_dead(Both(), grouping, inputs) == [False, False]
    network["right"].weight.data[:, 1] = 0
    assert find_dead(Both(), grouping, inputs) == [False, True]


def test_search_stops_when_every_channel_is_seen_alive_and_leaves_no_hook() -> None:
    context = make_context(SmallLeNet, n_examples=5 * MAX_BATCH)
    read = []

    def note(inputs: Tensor) -> Tensor:
        read.append(len(inputs))
        return inputs

    find_dead_channels(dataclasses.replace(context, normalise=note))
    assert max(read) == MAX_BATCH
    assert sum(read) < 2 * MAX_BATCH
    assert not any(module._forward_pre_hooks for module in context.network.modules())


def test_a_dead_channel_is_looked_for_once_in_all_images_and_told_of(tmp_path: Path) -> None:
    context = make_context(SmallLeNet, n_examples=2 * MAX_BATCH + 1)
    silence_(context.network, context.grouping.groups[0], [0])
    read, told = [], []

    def note(inputs: Tensor) -> Tensor:
        read.append(len(inputs))
        return inputs

    context = dataclasses.replace(
        context,
        normalise=note,
        workspace=tmp_path,
        progress=lambda what, n_done, n_total: told.append((n_done, n_total)),
    )
    magnitudes = score("magnitude", context)
    assert sum(read) > len(context.calibration)
    assert told == [(64, 129), (128, 129), (129, 129)]
    read.clear()
    assert score("bn-scale", context)["conv1"].argmin() == magnitudes["conv1"].argmin() == 0
    assert sum(read) <= 8  # which the key is taken from
    assert len(told) == 3
