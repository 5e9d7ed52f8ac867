"""VGG-16 with batch norm for images of 32 x 32 pixels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from dirprune.errors import ConfigurationError

WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512)
POOLED_AFTER = frozenset({1, 3, 6, 9, 12})  # convolutions, counted from 0, that max-pooling follows


class VGG16(nn.Module):
    """Classify 32 x 32 images with 13 convolutions, one hidden linear layer and the output.

    Configuration D of Simonyan and Zisserman 2015 as it is used for CIFAR: batch norm and ReLU follow every
    convolution, one linear layer of 512 channels stands in place of two of 4,096, and as in Dirichlet Pruning
    there is no activation behind it. With the default widths: 313,463,808 MACs and 14,990,922 parameters.

    Args:
        widths: Channels of the 13 convolutions and of the linear layer; each >= 1.
        n_classes: Outputs.
        in_channels: Channels of the images.
    Raises:
        ConfigurationError: If the widths are not 14 positive integers.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, n_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if len(widths) != len(WIDTHS) or any(width < 1 for width in widths):
            raise ConfigurationError(
                f"VGG-16 expects 14 positive widths, got {tuple(widths)}; try {','.join(map(str, WIDTHS))}"
            )
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        before = in_channels
        for place, width in enumerate(widths[:-1]):
            number = place + 1
            layers[f"conv{number}"] = nn.Conv2d(before, width, 3, padding=1)
            layers[f"bn{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{number}"] = nn.ReLU()
            if place in POOLED_AFTER:
                layers[f"pool{number}"] = nn.MaxPool2d(2)
            before = width
        self.features = nn.Sequential(layers)
        self.linear1 = nn.Linear(before, widths[-1])
        self.linear2 = nn.Linear(widths[-1], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, shape (batch, n_classes), of images of shape (batch, in_channels, 32, 32)."""
        hidden = self.features(images).flatten(1)  # (batch, widths[12], 1, 1) before the flatten
        return self.linear2(self.linear1(hidden))
