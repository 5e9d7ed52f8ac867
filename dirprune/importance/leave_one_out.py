"""Leave-one-out scores: what the loss loses with each channel pruned alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.coalitions import VALUES, Opener
from dirprune.importance.registry import register


@dataclass(frozen=True)
class LeaveOneOutOptions:
    """Options of `LeaveOneOut`.

    Attributes:
        value: What is lost: "loss" (its increase) or "accuracy" (its decrease).
    """

    value: str = "loss"

    def __post_init__(self) -> None:
        if self.value not in VALUES:
            raise ImportanceError(
                f"value must be 'loss' or 'accuracy', got {self.value!r}{suggest(self.value, VALUES)}"
            )


@register(
    "leave-one-out",
    "the increase of the loss when the channel alone is pruned",
    paper="Molchanov et al. 2017, arXiv:1611.06440 (there the oracle)",
    cost="n + 1 coalitions a group, each one pass of what follows the group",
    needs_data=True,
    needs_gradients=False,
    stochastic=False,
)
class LeaveOneOut(Scorer):
    """Scores each channel c of a group N by v(N) - v(N without c), v being minus the mean loss or accuracy.

    Measured, where `taylor` and `fisher` estimate it. All other channels are there, so that of two channels
    that can replace each other neither looks important.
    """

    Options = LeaveOneOutOptions
    is_kept_in_parts = True

    def score(self, context: ScoringContext) -> Scores:
        """Return what is lost without each channel, each of shape (n_channels,); negative where it harms."""
        scores: Scores = {}
        opener = Opener(context, value=self.options.value)
        for group in context.grouping.groups:
            values = opener.open(group.name)
            whole = np.ones((1, group.n_channels), dtype=bool)
            without_one = ~np.eye(group.n_channels, dtype=bool)
            found = values.evaluate(np.concatenate([whole, without_one]))
            scores[group.name] = torch.from_numpy(found[0] - found[1:])
        return scores
