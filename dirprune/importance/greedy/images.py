"""What both greedy methods look at: some of the images, and batch-norm statistics that follow what is cut."""

from __future__ import annotations

import copy
import dataclasses

import torch

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import Kept, ScoringContext
from dirprune.importance.coalitions import VALUES
from dirprune.switches import mask, switched


def check_common(value: str, n_examples: int, step: float) -> None:
    """Check the options that both greedy methods have.

    Raises:
        ImportanceError: If one cannot be used.
    """
    if value not in VALUES:
        raise ImportanceError(f"value must be 'loss' or 'accuracy', got {value!r}{suggest(value, VALUES)}")
    if n_examples < 1:
        raise ImportanceError(f"n_examples must be at least 1, got {n_examples}")
    if not 0 < step <= 1:
        raise ImportanceError(f"step must be in (0, 1], got {step:g}; 2% is 0.02")


def with_examples(context: ScoringContext, n_examples: int) -> ScoringContext:
    """Return the context with only the beginning of its calibration split, which is class-balanced too."""
    n_used = min(n_examples, len(context.calibration))
    return dataclasses.replace(context, calibration=context.calibration.subset(torch.arange(n_used)))


def recalibrated(context: ScoringContext, kept: Kept) -> ScoringContext:
    """Return the context with a copy of the network whose batch-norm statistics follow what is cut."""
    from dirprune.pruning import recalibrate_  # which itself imports this package

    if not kept:
        return context
    network = copy.deepcopy(context.network)
    values = {name: factors.to(context.device) for name, factors in mask(context.grouping, kept).items()}
    with switched(network, context.grouping, values):
        recalibrate_(network, context.calibration, context.normalise, context.device)
    return dataclasses.replace(context, network=network)
