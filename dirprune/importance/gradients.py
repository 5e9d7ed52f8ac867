"""Scores from one backward pass: how the loss changes with a switch at one on each channel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.footprint import allow
from dirprune.importance.fresh_norm import count_in_part, lacks_statistics
from dirprune.importance.registry import register
from dirprune.switches import switched


@dataclass(frozen=True)
class GradientOptions:
    """Options of `Taylor` and `Fisher`.

    Attributes:
        batch_size: Calibration examples differentiated at once; >= 1. Changes memory, not scores. Where batch
            norm has no stored statistics, about 250 are, from which it takes them.
    """

    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ImportanceError(f"batch_size must be at least 1, got {self.batch_size}")


class SwitchGradients(Scorer):
    """Averages a function of the loss's derivative with respect to a switch on each channel.

    The switch s = 1 multiplies the channel z where it enters its consumers, so that for one example
    dL/ds = sum over positions and consumers of z * dL/dz.
    """

    Options = GradientOptions

    @abstractmethod
    def contribution(self, derivatives: Tensor) -> Tensor:
        """Map dL/ds of single examples, shape (batch, n_channels), to what is averaged over the examples."""

    def depends_on(self, context: ScoringContext) -> Any:
        """Return what tells scores from those of an earlier version, whose batches were others."""
        has_all = not any(map(lacks_statistics, context.network.modules()))
        return None if has_all else "batches from which statistics come are whole"

    def score(self, context: ScoringContext) -> Scores:
        """Return scores >= 0, each of shape (n_channels,)."""
        groups = context.grouping.groups
        totals = {group.name: torch.zeros(group.n_channels, dtype=torch.float64) for group in groups}
        n_images = len(context.calibration)
        shortage = allow(context, self.options.batch_size)
        size = self.options.batch_size if shortage.is_divisible else count_in_part(n_images)
        for batch in torch.arange(n_images).split(size):
            for sums in shortage.compute_in_parts(batch, partial(self._sum_up, context), "gradients"):
                for name, total in sums.items():
                    totals[name] += total
            if context.progress is not None:
                context.progress("gradients", int(batch[-1]) + 1, n_images)
        return {name: total / n_images for name, total in totals.items()}

    def _sum_up(self, context: ScoringContext, positions: Tensor) -> Scores:
        """Return the summed contributions of some examples, each of shape (n_channels,), on the CPU."""
        found = compute_switch_gradients(context, *context.load(positions))
        return {name: self.contribution(each.double()).sum(dim=0).cpu() for name, each in found.items()}


def compute_switch_gradients(context: ScoringContext, inputs: Tensor, targets: Tensor) -> Scores:
    """Differentiate each example's loss with respect to a switch at one on each channel.

    Args:
        inputs: Normalised, shape (batch, ...).
        targets: Shape (batch, ...).
    Returns:
        For each group a tensor of shape (batch, n_channels).
    """
    groups = context.grouping.groups
    if not groups:
        return {}
    with torch.enable_grad():
        switches = {
            group.name: torch.ones(len(inputs), group.n_channels, device=inputs.device, requires_grad=True)
            for group in groups
        }
        with switched(context.network, context.grouping, switches):
            loss = context.task.summed_loss(context.network(inputs), targets)
        gradients = torch.autograd.grad(loss, list(switches.values()), materialize_grads=True)
    return dict(zip(switches, gradients, strict=True))


@register(
    "taylor",
    "first-order change of the loss when the channel is removed",
    paper="Molchanov et al. 2017, arXiv:1611.06440; 2019, arXiv:1906.10771",
    cost="one forward and backward pass for each calibration image, all groups together",
    needs_data=True,
    needs_gradients=True,
    stochastic=False,
)
class Taylor(SwitchGradients):
    """Scores each channel by its mean |activation * gradient| (Molchanov et al. 2017, eq. 8)."""

    def contribution(self, derivatives: Tensor) -> Tensor:
        """Return |dL/ds|."""
        return derivatives.abs()


@register(
    "fisher",
    "second-order change of the loss when the channel is removed, by the empirical Fisher information",
    paper="Theis et al. 2018, Faster Gaze Prediction with Dense Networks, arXiv:1801.05787",
    cost="one forward and backward pass for each calibration image, all groups together",
    needs_data=True,
    needs_gradients=True,
    stochastic=False,
)
class Fisher(SwitchGradients):
    """Scores each channel by half its mean (activation * gradient)^2 over examples (Theis et al. 2018)."""

    def contribution(self, derivatives: Tensor) -> Tensor:
        """Return (dL/ds)^2 / 2."""
        return derivatives.square() / 2
