"""What both greedy methods have in common: their options' checks, and the images that they look at."""

from __future__ import annotations

import dataclasses

import torch

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import ScoringContext
from dirprune.importance.coalitions import VALUES


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
