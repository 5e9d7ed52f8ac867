"""LeNet-5 as the pruning literature uses it: pool, activation, batch norm, and linear layers at the end."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dirprune.errors import ConfigurationError


class LeNet5(nn.Module):
    """Classify 28 x 28 images with two convolutions and three linear layers.

    Each convolution is followed by max-pooling, ReLU and batch norm in this order; there is no activation
    between the linear layers. With the default widths: 498,750 MACs, 40,225 trainable parameters.

    Args:
        widths: Channels of conv1, conv2, linear1, linear2; each >= 1.
        n_classes: Outputs of linear3.
        in_channels: Channels of the images.
    Raises:
        ConfigurationError: If the widths are not four positive integers.
    """

    def __init__(
        self, widths: Sequence[int] = (10, 20, 100, 25), n_classes: int = 10, in_channels: int = 1
    ) -> None:
        super().__init__()
        if len(widths) != 4 or any(width < 1 for width in widths):
            raise ConfigurationError(
                f"LeNet-5 expects four positive widths, got {tuple(widths)}; try 10,20,100,25"
            )
        first, second, third, fourth = widths
        self.conv1 = nn.Conv2d(in_channels, first, kernel_size=5)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, kernel_size=5)
        self.bn2 = nn.BatchNorm2d(second)
        self.linear1 = nn.Linear(second * 4 * 4, third)
        self.linear2 = nn.Linear(third, fourth)
        self.linear3 = nn.Linear(fourth, n_classes)
        self.pool = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_classes), of images of shape (batch, in_channels, 28, 28)."""
        hidden = self.bn1(self.relu(self.pool(self.conv1(images))))  # (batch, widths[0], 12, 12)
        hidden = self.bn2(self.relu(self.pool(self.conv2(hidden))))  # (batch, widths[1], 4, 4)
        return self.linear3(self.linear2(self.linear1(hidden.flatten(1))))
