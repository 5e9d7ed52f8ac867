"""The residual networks of He et al. 2016 for CIFAR: three stages of blocks, shortcuts without weights."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.errors import ConfigurationError

WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Add to the input what two 3 x 3 convolutions make of it.

    Where the block halves the resolution, its shortcut takes every second pixel and puts channels of zeros
    around the input's own, half of them before and half behind (option A of He et al. 2016).

    Args:
        in_channels: Channels of the input.
        inner_channels: Channels between the two convolutions: those that pruning removes.
        out_channels: Channels of the output; >= `in_channels`, and more by an even number.
        stride: Of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(inner_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.n_padded = (out_channels - in_channels) // 2

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, out_channels, h / stride, w / stride)."""
        hidden = F.relu(self.bn1(self.conv1(images)))
        return F.relu(self.bn2(self.conv2(hidden)) + self._shortcut(images))

    def _shortcut(self, images: Tensor) -> Tensor:
        if self.stride == 1 and self.n_padded == 0:
            return images
        coarse = images[:, :, :: self.stride, :: self.stride]
        return F.pad(coarse, (0, 0, 0, 0, self.n_padded, self.n_padded))


class ResNetCifar(nn.Module):
    """Classify 32 x 32 images with 3 stages of basic blocks: 6 * n + 2 layers with weights.

    The names of modules are those of the published weights (`layer1.0.conv1`, ..., `linear`). ResNet-20:
    40,551,040 MACs and 269,722 parameters; ResNet-56: 125,485,696 MACs and 853,018 parameters.

    Args:
        depth: Layers with weights; 6 * n + 2 for n blocks in a stage, n >= 1.
        n_classes: Outputs.
        in_channels: Channels of the images.
    Raises:
        ConfigurationError: If no such network has that depth.
    """

    def __init__(self, depth: int = 20, n_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        n_blocks, rest = divmod(depth - 2, 6)
        if rest or n_blocks < 1:
            raise ConfigurationError(
                f"a ResNet for CIFAR has 6 * n + 2 layers, got a depth of {depth}; try 20, 32, 44, 56 or 110"
            )
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1 = _make_stage(n_blocks, WIDTHS[0], WIDTHS[0], stride=1)
        self.layer2 = _make_stage(n_blocks, WIDTHS[0], WIDTHS[1], stride=2)
        self.layer3 = _make_stage(n_blocks, WIDTHS[1], WIDTHS[2], stride=2)
        self.linear = nn.Linear(WIDTHS[2], n_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)  # He et al. 2015, equation 10

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_classes), of images of shape (batch, in_channels, 32, 32)."""
        hidden = F.relu(self.bn1(self.conv1(images)))  # (batch, 16, 32, 32)
        hidden = self.layer3(self.layer2(self.layer1(hidden)))  # (batch, 64, 8, 8)
        return self.linear(hidden.mean((2, 3)))


def _make_stage(n_blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, channels, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, channels) for _ in range(n_blocks - 1)))


RESNETS = {f"resnet{depth}": partial(ResNetCifar, depth) for depth in (20, 32, 44, 56, 110)}
"""The depths of the paper, by the names that they go by."""
