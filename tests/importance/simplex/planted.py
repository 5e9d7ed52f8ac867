"""A network with pairs of channels planted in it, of which it is known how they depend on one another."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from dirprune.importance import ScoringContext
from tests.importance.cases import linear_case, make_split

TOGETHER, SUBSTITUTES = (0, 1), (2, 3)


def planted_case(n_examples: int = 2000) -> ScoringContext:
    """Return a linear network of one group of eight channels, as a regression on its own outputs.

    Channels 0 and 1 carry the same nuisance with opposite weights, so that it cancels: to remove both costs
    nothing, to remove one costs more than anything else. Channels 2 and 3 carry the same input with the same
    weight, so that one can stand in for the other. Channels 4 to 7 carry an input of their own each.
    """
    inputs = torch.randn(n_examples, 6, generator=torch.Generator().manual_seed(1))
    taken = torch.tensor([0, 0, 1, 1, 2, 3, 4, 5])
    network = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Linear(8, 1, bias=False)).eval()
    network[0].weight.data = nn.functional.one_hot(taken, 6).float()
    network[1].weight.data = 0.15 * torch.tensor([[2.0, -2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    with torch.no_grad():
        targets = network(inputs)
    return dataclasses.replace(
        linear_case([1.0] * 8), network=network, calibration=make_split(inputs, targets)
    )
