"""A channel group's own weights."""

from __future__ import annotations

import torch
from torch import nn

from dirprune.groups import ChannelGroup, Slot
from dirprune.importance.channels import own_weights


def test_rows_of_a_transposed_convolution_are_its_output_channels() -> None:
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 1))
    group = ChannelGroup("0", 3, (Slot("0", (0, 1, 2)), Slot("no_module", (0, 1, 2))), ())
    [(channel_of, rows)] = own_weights(network, group)
    assert channel_of.tolist() == [0, 1, 2]
    assert torch.equal(rows[1], network[0].weight[:, 1, 0, 0])
