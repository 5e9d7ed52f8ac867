"""Which architectures promise most once their groups are cut together, not each alone.

What groups lose alone adds up to far less than what they lose together: to a third of it on ResNet-20, to a
thirtieth on ResNet-56 (`benchmarks/RESULTS.md`). So the architectures that sums would choose are cut as a
whole, what that tells of the others is taken into account, and the choice is made again.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from dirprune.allocation import Allocation, choose_spread
from dirprune.architecture import Architecture

WHAT = "joint cuts"
MAX_ROUNDS = 4
N_TRIED = 4
"""Candidates beside which something is looked at in any case; beside others only if it was better once."""
LEAST_LOSS = 1e-6
"""In nats; sums below say nothing of what is lost together."""

Measure = Callable[[Architecture], float]
Alternatives = Callable[[Architecture], Sequence[Architecture]]


class JointCuts:
    """Cuts candidates as a whole, and what lies between them and equal keep ratios.

    Args:
        measure: Returns by how much the loss rises when all groups of an architecture are cut.
        find_alternatives: Returns architectures of at most the same cost, the nearest first; one is looked at
            as long as the one before was better than those before it.
        tell: Called with what is done and how much of how much, before and after each candidate.
    """

    def __init__(
        self, measure: Measure, find_alternatives: Alternatives, tell: Callable[[str, int, int], None]
    ) -> None:
        self.measure, self.find_alternatives, self.tell = measure, find_alternatives, tell
        self.best: dict[Architecture, tuple[Architecture, float]] = {}
        self.n_bettered = 0

    def choose(
        self,
        candidates: Sequence[Allocation],
        cost_of: Callable[[Mapping[str, int]], float],
        n: int,
        whole: float,
        least: float,
    ) -> list[Allocation]:
        """Return the allocations that promise the largest hypervolume together, by what was measured.

        Args:
            candidates: With losses that are sums over their groups.
            cost_of: Costs in their unit.
            n, whole, least: As in `choose_spread`.
        """
        ratios: list[float] = []
        for _ in range(MAX_ROUNDS):
            factor = statistics.median(ratios) if ratios else 1.0
            told = {}
            for candidate in candidates:
                one = self._tell_of(candidate, cost_of) or replace(candidate, loss=factor * candidate.loss)
                if math.isfinite(one.loss):
                    told[id(one)] = (one, candidate)
            promising = choose_spread([one for one, _ in told.values()], n, whole, least)
            chosen = [told[id(one)][1] for one in promising]
            new = [one for one in chosen if one.architecture not in self.best]
            if not new:
                break
            self.tell(WHAT, 0, len(new))
            for n_done, one in enumerate(new, 1):
                lost = self._look_at(one.architecture)
                if one.loss > LEAST_LOSS and math.isfinite(lost):
                    ratios.append(max(1.0, lost / one.loss))
                self.tell(WHAT, n_done, len(new))
        found = (self._tell_of(each, cost_of) for each in candidates)
        known = {one.architecture: one for one in found if one is not None and math.isfinite(one.loss)}
        return choose_spread(list(known.values()), n, whole, least)

    def _look_at(self, architecture: Architecture) -> float:
        """Measure an architecture and what lies beside it; return its own loss."""
        lost = self._measure(architecture)
        best = (architecture, lost)
        is_tried = len(self.best) < N_TRIED or self.n_bettered > 0
        for other in self.find_alternatives(architecture) if is_tried else ():
            loss = self._measure(other)
            if not loss < best[1]:
                break
            best = (other, loss)
        self.best[architecture] = best
        self.n_bettered += best[0] != architecture
        return lost

    def _measure(self, architecture: Architecture) -> float:
        loss = self.measure(architecture)
        return loss if math.isfinite(loss) else math.inf

    def _tell_of(
        self, candidate: Allocation, cost_of: Callable[[Mapping[str, int]], float]
    ) -> Allocation | None:
        """Return what was found in place of a candidate, if anything was."""
        if candidate.architecture not in self.best:
            return None
        architecture, loss = self.best[candidate.architecture]
        return Allocation(architecture, loss, cost_of(architecture))
