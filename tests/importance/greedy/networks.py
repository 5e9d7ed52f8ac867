"""A network with two independent groups, whose loss is the sum of the squared weights of what is missing."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from dirprune.groups import ChannelGroup, Grouping, Slot
from dirprune.importance import ScoringContext
from dirprune.tasks import make_task
from tests.importance.cases import identity, make_split


class TwoSides(nn.Module):
    """left_head(left(x[:n])) + right_head(right(x[n:])), left and right being the identity."""

    def __init__(self, left: list[float], right: list[float]) -> None:
        super().__init__()
        self.left = nn.Linear(len(left), len(left), bias=False)
        self.right = nn.Linear(len(right), len(right), bias=False)
        self.left_head = nn.Linear(len(left), 1, bias=False)
        self.right_head = nn.Linear(len(right), 1, bias=False)
        for layer, head, weights in (
            (self.left, self.left_head, left),
            (self.right, self.right_head, right),
        ):
            layer.weight.data = torch.eye(len(weights))
            head.weight.data = torch.tensor([weights], dtype=torch.float32)

    def forward(self, inputs: Tensor) -> Tensor:
        left, right = inputs.split([self.left.in_features, self.right.in_features], dim=1)
        return self.left_head(self.left(left)) + self.right_head(self.right(right))


def two_sides(left: list[float], right: list[float]) -> ScoringContext:
    """Return a context whose inputs are all combinations of signs, so that channels are orthogonal."""
    network = TwoSides(left, right).eval()
    inputs = torch.tensor(list(itertools.product([-1.0, 1.0], repeat=len(left) + len(right))))
    with torch.no_grad():
        targets = network(inputs)
    groups = []
    for name, weights in (("left", left), ("right", right)):
        own = tuple(range(len(weights)))
        groups.append(ChannelGroup(name, len(weights), (Slot(name, own),), (Slot(f"{name}_head", own),)))
    return ScoringContext(
        network, Grouping(tuple(groups)), make_split(inputs, targets), identity, make_task("mse", "mse")
    )
