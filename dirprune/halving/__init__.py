"""Asynchronous successive halving on the Pareto front: which trials go on at a rung. Pure logic, no Ray."""

from __future__ import annotations

from collections.abc import Sequence

from dirprune.halving.base import Halving
from dirprune.halving.promoting import PromotingHalving
from dirprune.halving.stopping import StoppingHalving

__all__ = ["KINDS", "Halving", "PromotingHalving", "StoppingHalving", "make_halving"]

KINDS = ("stopping", "promoting", "none")
"""What a study may choose: end what is not among the best, let it pause, or let all run to their end."""


def make_halving(kind: str, rungs: Sequence[int], reduction_factor: float) -> Halving:
    """Make the halving of a study.

    Args:
        kind: One of `KINDS`.
        rungs: Resources at which trials are compared, in training images; increasing, >= 0.
        reduction_factor: One in `reduction_factor` trials goes on; > 1.
    Raises:
        ValueError: If the kind is unknown, the rungs do not increase or the factor is out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"expected one of {', '.join(KINDS)}, got {kind}")
    if kind == "promoting":
        return PromotingHalving(rungs, reduction_factor)
    return StoppingHalving(rungs if kind == "stopping" else (), reduction_factor)
