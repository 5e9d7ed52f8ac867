"""Wide residual networks for images of 32 x 32 pixels."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dirprune.errors import ConfigurationError

BASE_WIDTHS = (16, 32, 64)


class WideBlock(nn.Module):
    """Add to the input what two 3 x 3 convolutions make of it, each behind its batch norm and ReLU.

    Where the number of channels or the resolution changes, the shortcut is a 1 x 1 convolution of the
    normalised input.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output and between the convolutions.
        stride: Of the first convolution and of the shortcut.
        dropout: Share of the channels between the convolutions that are zero in training, in [0, 1).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map (batch, in_channels, h, w) to (batch, out_channels, h / stride, w / stride)."""
        before = F.relu(self.bn1(images))
        hidden = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(before)))))
        return hidden + (images if self.shortcut is None else self.shortcut(before))


class WideResNet(nn.Module):
    """Classify 32 x 32 images with 3 stages of wide blocks [Zagoruyko and Komodakis 2016].

    WRN-28-10, the default: 5,243,328,768 MACs and 36,479,194 parameters with 10 classes.

    Args:
        depth: Layers with weights; 6 * n + 4 for n blocks in a stage, n >= 1.
        widen: Factor of the widths 16, 32 and 64 of the stages, >= 1.
        dropout: Between the convolutions of a block, in [0, 1); the paper takes 0.3.
        n_classes: Outputs.
        in_channels: Channels of the images.
    Raises:
        ConfigurationError: If no such network has that depth or width.
    """

    def __init__(
        self,
        depth: int = 28,
        widen: int = 10,
        dropout: float = 0.0,
        n_classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        n_blocks, rest = divmod(depth - 4, 6)
        if rest or n_blocks < 1 or widen < 1:
            raise ConfigurationError(
                f"a wide ResNet has 6 * n + 4 layers and a factor of at least 1, got a depth of {depth} and "
                f"{widen}; try 28 and 10"
            )
        widths = [widen * width for width in BASE_WIDTHS]
        self.conv1 = nn.Conv2d(in_channels, BASE_WIDTHS[0], 3, padding=1, bias=False)
        stages = []
        before = BASE_WIDTHS[0]
        for place, width in enumerate(widths):
            blocks = [WideBlock(before, width, 1 if place == 0 else 2, dropout)]
            blocks += [WideBlock(width, width, 1, dropout) for _ in range(n_blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            before = width
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(before)
        self.linear = nn.Linear(before, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_classes), of images of shape (batch, in_channels, 32, 32)."""
        hidden = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.linear(F.relu(self.bn1(hidden)).mean((2, 3)))
