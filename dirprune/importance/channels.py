"""Reads a channel group's own weights."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dirprune.groups import ChannelGroup
from dirprune.layers import CONVOLUTIONS


def own_weights(network: nn.Module, group: ChannelGroup) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights that make a group's channels, one convolution or linear layer at a time.

    Yields:
        channel_of: The channel that each row belongs to, shape (n_rows,), -1 for none.
        rows: The weights of each index of the layer's output axis, shape (n_rows, n_weights).
    """
    modules = dict(network.named_modules())
    for slot in group.producers:
        module = modules.get(slot.module)
        if not isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            continue
        weight = module.weight.detach()
        is_transposed = not isinstance(module, nn.Linear) and module.transposed and module.groups == 1
        rows = (weight.transpose(0, 1) if is_transposed else weight).flatten(1)
        yield torch.tensor(slot.channel_of, device=rows.device), rows
