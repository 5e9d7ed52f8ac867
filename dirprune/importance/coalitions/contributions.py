"""What each channel adds to the layer that it enters, so that a coalition's input to it is a sum."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.groups import Slot
from dirprune.importance.coalitions.graph import FORWARD_CONVOLUTIONS

CONVOLVE = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}


def has_contributions(layer: nn.Module) -> bool:
    """Return whether `Contributions` can take a layer apart."""
    if isinstance(layer, FORWARD_CONVOLUTIONS):
        return type(layer) in CONVOLVE and layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


class Contributions:
    """Takes a convolution or linear layer apart into one summand for each channel of a group.

    With z the layer's input and W, b its weights, the output with the channels of S present is

        y(S) = y(none) + sum_{c in S} W[:, positions of c] z[positions of c],

    where y(none) holds b and what channels outside the group add.

    Args:
        layer: A layer for which `has_contributions`, frozen.
        slot: Where the group enters it.
        n_channels: Channels of the group.
    """

    def __init__(self, layer: nn.Module, slot: Slot, n_channels: int) -> None:
        self.layer = layer
        self.n_channels = n_channels
        channel_of = torch.tensor(slot.channel_of)
        self.is_outside = channel_of < 0
        positions = [torch.nonzero(channel_of == channel).flatten() for channel in range(n_channels)]
        self.positions = torch.stack(positions)  # (n_channels, n_positions): equal shares, or not a group

    def compute(self, layer_input: Tensor) -> Tensor:
        """Return the summands of every channel, the constant one last.

        Args:
            layer_input: Shape (n, n_inputs, ...) for a convolution, (n, ..., n_inputs) for a linear layer.
        Returns:
            Shape (n_channels + 1, n, *output), with output the shape of one example's output.
        """
        positions = self.positions.to(layer_input.device)
        axis = layer_input.dim() - 1 if isinstance(self.layer, nn.Linear) else 1
        shape = [1] * layer_input.dim()
        shape[axis] = -1
        outside = self.is_outside.to(layer_input).reshape(shape)
        constant = self.layer(layer_input * outside)
        if isinstance(self.layer, nn.Linear):
            parts = self._split_linear(layer_input, positions)
        else:
            parts = self._split_convolution(layer_input, positions)
        return torch.cat([parts, constant.unsqueeze(0)])

    def _split_linear(self, layer_input: Tensor, positions: Tensor) -> Tensor:
        weight = cast(Tensor, self.layer.weight)  # (n_outputs, n_inputs)
        inputs = layer_input[..., positions].movedim(-2, 0)  # (n_channels, n, ..., n_positions)
        weights = weight[:, positions].permute(1, 2, 0)  # (n_channels, n_positions, n_outputs)
        products = torch.bmm(inputs.flatten(1, -2), weights)
        return products.reshape(*inputs.shape[:-1], -1)

    def _split_convolution(self, layer_input: Tensor, positions: Tensor) -> Tensor:
        layer = cast(nn.Conv2d, self.layer)
        n_channels = len(positions)
        # One group of the convolution for each channel: its own positions in, all outputs out.
        weight = layer.weight[:, positions].movedim(0, 1)  # (n_channels, n_outputs, n_positions, *kernel)
        convolved = CONVOLVE[type(layer)](
            layer_input[:, positions.flatten()],
            weight.flatten(0, 1),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=n_channels,
        )
        return convolved.unflatten(1, (n_channels, -1)).movedim(1, 0)
