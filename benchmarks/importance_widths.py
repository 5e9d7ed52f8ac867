"""Architectures of a subject that cost a share of the dense network's MACs."""

from __future__ import annotations

from importance_common import Subject

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.importance.base import Scores
from dirprune.importance.greedy import Path


class Widths:
    """What the architectures of a subject cost, and which ones come down to a share of its MACs.

    Args:
        subject: The network and its data.

    Attributes:
        grouping: Its channel groups.
        full: The dense network's architecture.
        cost: What an architecture costs.
    """

    def __init__(self, subject: Subject) -> None:
        self.grouping = subject.grouping
        self.full = Architecture.full(subject.grouping)
        self.cost = CostModel(subject.network, subject.grouping, subject.roles.example_input())

    def share_of(self, architecture: Architecture) -> float:
        """Return the MACs of an architecture, the dense network's being one."""
        return self.cost.costs(architecture).macs / self.cost.costs(self.full).macs

    def evenly(self, share: float) -> Architecture:
        """Return the largest architecture of equal keep ratios within a share of the MACs."""
        ratio = 1.0
        while self.share_of(architecture := Architecture.uniform(self.grouping, ratio)) > share:
            ratio -= 0.005
        return architecture

    def along(self, places: Scores, share: float) -> Architecture:
        """Return the first architecture within a share of the MACs on the path that gave these scores."""
        path = Path.from_scores(places, lambda left: self.share_of(Architecture(left)))
        return path.architecture_within(share)
