"""Metrics as people read them."""

from __future__ import annotations

from dirprune.cost import COST_METRICS


def format_metric(name: str, value: float) -> str:
    """Return a metric for people: counts in full, accuracy and hypervolume with four decimals."""
    if name in COST_METRICS:
        return f"{value:,.0f}"
    return f"{value:.4f}" if name.endswith(("accuracy", "hypervolume")) else f"{value:.5g}"


def format_with_spread(name: str, mean: float, spread: float | None, sign: str = "±") -> str:
    """Return a metric with its standard deviation where it has one that is not zero."""
    text = format_metric(name, mean)
    return f"{text} {sign} {format_metric(name, spread)}" if spread else text
