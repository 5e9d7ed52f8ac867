"""Small networks that between them contain what makes channel groups hard."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SmallLeNet(nn.Module):
    """LeNet's order: pooling and activation before batch norm, linear layers without activation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3)
        self.bn2 = nn.BatchNorm2d(6)
        self.linear1 = nn.Linear(6 * 2 * 2, 8)
        self.linear2 = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.bn1(F.relu(F.max_pool2d(self.conv1(images), 2)))
        hidden = self.bn2(F.relu(F.max_pool2d(self.conv2(hidden), 2)))
        return self.linear2(self.linear1(hidden.flatten(1)))


class Residual(nn.Module):
    """A stem and two residual blocks, so that the stem's channels are coupled with those of both blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.conv_a1 = nn.Conv2d(6, 5, 3, padding=1, bias=False)
        self.bn_a1 = nn.BatchNorm2d(5)
        self.conv_a2 = nn.Conv2d(5, 6, 3, padding=1, bias=False)
        self.bn_a2 = nn.BatchNorm2d(6)
        self.conv_b1 = nn.Conv2d(6, 7, 3, padding=1, stride=2)
        self.bn_b1 = nn.BatchNorm2d(7)
        self.shortcut_b = nn.Conv2d(6, 7, 1, stride=2)
        self.head = nn.Linear(7, 4)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn(self.stem(images)))
        hidden = F.relu(hidden + self.bn_a2(self.conv_a2(F.relu(self.bn_a1(self.conv_a1(hidden))))))
        hidden = F.relu(self.bn_b1(self.conv_b1(hidden)) + self.shortcut_b(hidden))
        return self.head(hidden.mean((2, 3)))


class Narrow(nn.Module):
    """A convolution with one channel before one with four."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(1, 1, 3)
        self.bn = nn.BatchNorm2d(1)
        self.wide = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.wide(F.relu(self.bn(self.narrow(images)))))
        return self.head(hidden.mean((2, 3)))


class Concatenating(nn.Module):
    """Two branches joined before a dilated convolution, whose output is joined with one of them again."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(2, 4, 3, padding=1)
        self.right = nn.Conv2d(2, 6, 1)
        self.both = nn.Conv2d(10, 5, 3, padding=2, dilation=2)
        self.head = nn.Linear(5 + 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        left, right = F.relu(self.left(images)), torch.tanh(self.right(images))
        both = F.relu(self.both(torch.cat([left, right], dim=1)))
        return self.head(torch.cat([both, left], dim=1).mean((2, 3)))


class Depthwise(nn.Module):
    """An inverted residual as in MobileNet: expand, depthwise with stride, squeeze and excite, project."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(3, 8, 1, bias=False)
        self.bn_expand = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.bn_depthwise = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 2, 1)
        self.excite = nn.Conv2d(2, 8, 1)
        self.project = nn.Conv2d(8, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu6(self.bn_expand(self.expand(images)))
        hidden = F.relu6(self.bn_depthwise(self.depthwise(hidden)))
        hidden = hidden * torch.sigmoid(self.excite(F.relu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        return self.head(F.adaptive_avg_pool2d(self.project(hidden), 1).flatten(1))


class InParts(nn.Module):
    """A bottleneck as in RegNet: its convolution in three parts takes two channels to four in each."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(2, 6, 1, bias=False)
        self.bn_reduce = nn.BatchNorm2d(6)
        self.parts = nn.Conv2d(6, 12, 3, stride=2, padding=1, groups=3)
        self.bn_parts = nn.BatchNorm2d(12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.expand = nn.Conv2d(12, 5, 1)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        hidden = F.relu(self.bn_parts(self.parts(F.relu(self.bn_reduce(self.reduce(images))))))
        hidden = hidden * torch.sigmoid(self.excite(F.relu(self.squeeze(hidden.mean((2, 3), keepdim=True)))))
        return self.head(F.relu(self.expand(hidden)).mean((2, 3)))


class GroupNormed(nn.Module):
    """A residual block with group norms: on the shortcut in pairs and in fours, in the block each alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 12, 3, padding=1)
        self.pairs = nn.GroupNorm(6, 12)
        self.conv_a = nn.Conv2d(12, 5, 3, padding=1)
        self.alone = nn.GroupNorm(5, 5)
        self.conv_b = nn.Conv2d(5, 12, 3, padding=1)
        self.fours = nn.GroupNorm(3, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, images: Tensor) -> Tensor:
        stream = F.relu(self.pairs(self.stem(images)))
        stream = stream + self.fours(self.conv_b(F.relu(self.alone(self.conv_a(stream)))))
        return self.head(F.relu(stream).mean((2, 3)))


class Segmenting(nn.Module):
    """A fully convolutional encoder and decoder with a skip connection; its output is one map per class."""

    def __init__(self) -> None:
        super().__init__()
        self.encode1 = nn.Conv2d(1, 4, 3, padding=1)
        self.encode2 = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.decode = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.classify = nn.Conv2d(9, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = F.relu(self.encode1(images))
        coarse = F.relu(self.norm(self.encode2(fine)))
        return self.classify(torch.cat([F.relu(self.decode(coarse)), fine], dim=1))


class Scaled(nn.Module):
    """Channels scaled by a parameter of no layer, and by PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 5, 3)
        self.scale = nn.Parameter(torch.ones(5, 1, 1))
        self.activation = nn.PReLU(5)
        self.head = nn.Conv2d(5, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.activation(self.conv(images) * self.scale))


class LayerNormed(nn.Module):
    """Layer norm over the channels of `first`: removing one changes what all others become."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.second = nn.Linear(6, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(self.norm(self.first(inputs)))))


def build_mlp() -> nn.Module:
    """A perceptron with two hidden layers for inputs of four numbers."""
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))


CASES = {
    "lenet": (SmallLeNet, (1, 14, 14), ("conv1", "conv2", "linear1")),
    "residual": (Residual, (3, 8, 8), ("stem", "conv_a1", "conv_b1")),
    "concatenating": (Concatenating, (2, 6, 6), ("left", "right", "both")),
    "depthwise": (Depthwise, (3, 8, 8), ("expand", "squeeze", "project")),
    "in parts": (InParts, (2, 8, 8), ("reduce", "squeeze", "expand")),
    "group normed": (GroupNormed, (2, 8, 8), ("stem", "conv_a")),
    "segmenting": (Segmenting, (1, 8, 8), ("encode1", "encode2", "decode")),
    "scaled": (Scaled, (2, 6, 6), ("conv",)),
    "mlp": (build_mlp, (4,), ("0", "2")),
    "rows": (build_mlp, (3, 4), ("0", "2")),
}
"""Name -> (constructor, shape of one input, groups in forward order); every group of these can be cut."""


def build_case(name: str) -> tuple[nn.Module, Tensor]:
    """Return the network of a case, with weights that depend on the name alone, and a batch of two inputs."""
    constructor, shape, _ = CASES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sum(map(ord, name)))
        return constructor(), torch.randn(2, *shape)
