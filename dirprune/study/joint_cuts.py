"""Which architectures promise most once their groups are cut together, not each alone.

What groups lose alone adds up to far less than what they lose together: to a third of it on ResNet-20, to a
thirtieth on ResNet-56 (`benchmarks/results/importance.md#what-groups-lose-alone-and-together`). So the
architectures that sums would choose are cut as a whole, what that tells of the others is taken into account,
and the choice is made again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from dirprune.allocation import Allocation, choose_spread
from dirprune.architecture import Architecture

WHAT = "joint cuts"
MAX_ROUNDS = 4
N_TRIED = 4
"""Candidates beside which something is looked at in any case; beside others only if it was better once."""
LEAST_LOSS = 1e-6
"""In nats; sums below say nothing of what is lost together."""


class JointCuts:
    """Cuts candidates as a whole, and what lies between them and equal keep ratios.

    Args:
        measure: Returns by how much the loss rises when all groups of an architecture are cut.
        find_alternatives: Returns architectures beside one, the nearest first; they are looked at as long as
            each loses less than the one before.
        cost_of: Returns what an architecture costs, in the unit of the candidates.
        tell: Called with what is done and how much of how much, before and after each candidate.
    """

    def __init__(
        self,
        measure: Callable[[Architecture], float],
        find_alternatives: Callable[[Architecture], Sequence[Architecture]],
        cost_of: Callable[[Architecture], float],
        tell: Callable[[str, int, int], None],
    ) -> None:
        self.measure, self.find_alternatives = measure, find_alternatives
        self.cost_of, self.tell = cost_of, tell
        self.known: dict[Architecture, float] = {}
        self.n_looked_at = self.n_bettered = 0

    def choose(
        self, candidates: Sequence[Allocation], n: int, whole: float, least: float
    ) -> list[Allocation]:
        """Return the allocations that promise the largest hypervolume together, by what was measured.

        They are fewer than n where others that were measured are better in both.

        Args:
            candidates: With losses that are sums over their groups.
            n, whole, least: As in `choose_spread`.
        """
        by_architecture = {one.architecture: one for one in candidates}
        ratios: list[float] = []
        for _ in range(MAX_ROUNDS):
            factor = statistics.median(ratios) if ratios else 1.0
            left = [one for one in candidates if one.architecture not in self.known]
            told = [*self._list_measured(), *(replace(one, loss=factor * one.loss) for one in left)]
            promising = [one.architecture for one in choose_spread(told, n, whole, least)]
            new = [by_architecture[one] for one in promising if one not in self.known]
            if not new:
                break
            n_total = self.n_looked_at + len(new)
            self.tell(WHAT, self.n_looked_at, n_total)
            for one in new:
                lost = self._look_at(one.architecture)
                if one.loss > LEAST_LOSS and math.isfinite(lost):
                    ratios.append(max(1.0, lost / one.loss))
                self.tell(WHAT, self.n_looked_at, n_total)
        return choose_spread(self._list_measured(), n, whole, least)

    def _look_at(self, architecture: Architecture) -> float:
        """Measure an architecture and what lies beside it; return its own loss."""
        lost = least = self._measure(architecture)
        is_tried = self.n_looked_at < N_TRIED or self.n_bettered > 0
        for other in self.find_alternatives(architecture) if is_tried else ():
            loss = self._measure(other)
            if not loss < least:
                break
            least = loss
        self.n_looked_at += 1
        self.n_bettered += least < lost
        return lost

    def _measure(self, architecture: Architecture) -> float:
        """Return what an architecture loses, nothing if it gains; infinite if that is not finite."""
        if architecture not in self.known:
            loss = self.measure(architecture)
            self.known[architecture] = max(0.0, loss) if math.isfinite(loss) else math.inf
        return self.known[architecture]

    def _list_measured(self) -> list[Allocation]:
        return [
            Allocation(architecture, loss, self.cost_of(architecture))
            for architecture, loss in self.known.items()
            if math.isfinite(loss)
        ]
