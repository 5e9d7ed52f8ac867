"""Greedy elimination of channels: for one architecture, and as a path over all groups."""

from dirprune.importance.greedy.path import GreedyPath, Path, PathOptions, Step, compute_path
from dirprune.importance.greedy.selector import Greedy, GreedyOptions

__all__ = ["Greedy", "GreedyOptions", "GreedyPath", "Path", "PathOptions", "Step", "compute_path"]
