"""Dead channels, found on a network small enough to see."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance.channels import find_dead_channels, own_weights
from tests.importance.cases import make_context
from tests.networks_for_tests import SmallLeNet


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
    assert find_dead_channels(network, grouping, [positive])["0"].tolist() == [False, True, True, False]
    assert find_dead_channels(network, grouping, [negative])["0"].tolist() == [False, True, True, True]
    assert find_dead_channels(network, grouping, [negative, positive])["0"].tolist() == [
        False,
        True,
        True,
        False,
    ]


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
    assert find_dead_channels(Both(), grouping, [inputs])["parts.make"].tolist() == [False, False]
    network["right"].weight.data[:, 1] = 0
    assert find_dead_channels(Both(), grouping, [inputs])["parts.make"].tolist() == [False, True]


def test_search_stops_when_every_channel_is_seen_alive_and_leaves_no_hook() -> None:
    context = make_context(SmallLeNet)
    read = []

    def batches() -> Iterator[Tensor]:
        for number in range(5):
            read.append(number)
            yield context.calibration.inputs

    find_dead_channels(context.network, context.grouping, batches())
    assert read == [0]
    assert not any(module._forward_pre_hooks for module in context.network.modules())


def test_rows_of_a_transposed_convolution_are_its_output_channels() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 1))
    group = ChannelGroup("0", 3, (Slot("0", (0, 1, 2)), Slot("no_module", (0, 1, 2))), ())
    [(channel_of, rows)] = own_weights(network, group)
    assert channel_of.tolist() == [0, 1, 2]
    assert torch.equal(rows[1], network[0].weight[:, 1, 0, 0])
