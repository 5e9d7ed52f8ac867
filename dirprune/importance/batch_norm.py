"""Batch-norm scores: how much the batch norm of a channel lets through."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dirprune.groups import ChannelGroup
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.magnitude import compute_norms
from dirprune.importance.registry import register


@register(
    "bn-scale",
    "the scale |gamma| of the batch norms that act on a channel; without any, the L2 norm of its weights",
    paper="Liu et al. 2017, Network Slimming, arXiv:1708.06519",
    cost="nothing to speak of: the weights are read once, and images until all channels were seen alive",
    needs_data=False,
    needs_gradients=False,
    stochastic=False,
)
class BatchNormScale(Scorer):
    """Scores each channel by |gamma|, the factor of its batch norm (Liu et al. 2017).

    Where several batch norms act on a channel, as in residual blocks that share it, their scales are added.
    It does not matter whether batch norm comes before the activation or behind it. Scores are only compared
    within a group, so a group without a batch norm that has scales is scored in another way, by the L2 norm
    of the weights that make the channel: all of its gammas would be the same.
    """

    def score(self, context: ScoringContext) -> Scores:
        """Return scales or norms >= 0, each of shape (n_channels,)."""
        scores: Scores = {}
        for group in context.grouping.groups:
            scales = _sum_scales(context.network, group)
            scores[group.name] = compute_norms(context.network, group, 2) if scales is None else scales
        return scores


def _sum_scales(network: nn.Module, group: ChannelGroup) -> Tensor | None:
    """Return the summed |gamma| of each channel, shape (n_channels,); None if some channel has no scale."""
    total = torch.zeros(group.n_channels, dtype=torch.float64)
    is_scaled = torch.zeros(group.n_channels, dtype=torch.bool)
    modules = dict(network.named_modules())
    for slot in group.producers:
        module = modules.get(slot.module)
        if not isinstance(module, _BatchNorm) or module.weight is None:
            continue
        channel_of = torch.tensor(slot.channel_of)
        is_ours = channel_of >= 0
        total.index_add_(0, channel_of[is_ours], module.weight.detach().double().abs().cpu()[is_ours])
        is_scaled[channel_of[is_ours]] = True
    return total if bool(is_scaled.all()) else None
