"""Greedy elimination of channels: for one architecture, and as a path over all groups."""

from dirprune.importance.greedy.path import GreedyPath, PathOptions, compute_path
from dirprune.importance.greedy.selector import Greedy, GreedyOptions
from dirprune.importance.greedy.steps import Path, Step

__all__ = ["Greedy", "GreedyOptions", "GreedyPath", "Path", "PathOptions", "Step", "compute_path"]
