"""Magnitude scores: the norm of the weights that make a channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dirprune.errors import ImportanceError, suggest
from dirprune.groups import ChannelGroup
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.channels import own_weights
from dirprune.importance.registry import register

NORMS = ("l1", "l2")


@dataclass(frozen=True)
class MagnitudeOptions:
    """Options of `Magnitude`.

    Attributes:
        norm: "l1" (sum of absolute weights) or "l2" (root of the sum of squares).
    """

    norm: str = "l1"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ImportanceError(f"norm must be 'l1' or 'l2', got {self.norm!r}{suggest(self.norm, NORMS)}")


@register(
    "magnitude",
    "the L1 or L2 norm of the weights that make a channel",
    paper="Li et al. 2017, Pruning Filters for Efficient ConvNets, arXiv:1608.08710",
    cost="nothing to speak of: the weights are read once, and images until all channels were seen alive",
    needs_data=False,
    needs_gradients=False,
    stochastic=False,
)
class Magnitude(Scorer):
    """Scores each channel by the norm of its own weights, bias and batch norm left out (Li et al. 2017).

    Where several layers make the channel together, the norm is that of all their weights: L1 norms are added,
    L2 norms are the root of the summed squares.
    """

    Options = MagnitudeOptions

    def score(self, context: ScoringContext) -> Scores:
        """Return norms >= 0, each of shape (n_channels,)."""
        power = 1 if self.options.norm == "l1" else 2
        return {group.name: compute_norms(context.network, group, power) for group in context.grouping.groups}


def compute_norms(network: nn.Module, group: ChannelGroup, power: int) -> Tensor:
    """Return the L1 (power 1) or L2 (power 2) norm of the weights that make each channel.

    Returns:
        Shape (n_channels,), float64 on the CPU, >= 0.
    """
    total = torch.zeros(group.n_channels, dtype=torch.float64)
    for channel_of, rows in own_weights(network, group):
        sums = rows.double().abs().pow(power).sum(dim=1).cpu()
        is_ours = channel_of.cpu() >= 0
        total.index_add_(0, channel_of.cpu()[is_ours], sums[is_ours])
    return total.pow(1 / power)
