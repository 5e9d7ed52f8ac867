"""Structured pruning as a study: from a trained network to the Pareto front of accuracy against cost."""

__version__ = "0.1.0"
