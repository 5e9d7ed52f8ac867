"""Greedy elimination for a given architecture, group by group, then exchanges and further sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dirprune.errors import ImportanceError
from dirprune.importance.base import Kept, ScoringContext, Selector
from dirprune.importance.cache import open_lines
from dirprune.importance.coalitions import CoalitionValues, open_values
from dirprune.importance.greedy.elimination import Elimination, exchange
from dirprune.importance.greedy.images import check_common, with_examples
from dirprune.importance.greedy.search import check_search, is_exact
from dirprune.importance.greedy.shrinking import shrink
from dirprune.importance.registry import register


@dataclass(frozen=True)
class GreedyOptions:
    """Options of `Greedy`.

    Attributes:
        value: "loss" (the better conditioned one) or "accuracy".
        n_examples: Calibration images that judge; >= 1. All of them where there are fewer.
        swaps: Rounds of exchanges after each elimination; 0 makes none.
        sweeps: Further passes over the groups, given all that is cut elsewhere; >= 0.
        step: Share of the channels left that may go at once, in (0, 1]; at least one always may.
        lazy: Whether channels that cannot be the cheapest are left out.
        recalibrate: Whether channels are judged with the batch-norm statistics that they leave, as when these
            are estimated again after pruning.
        search: "exact" judges every candidate by running the network, "curvature" all of them at once to
            second order, which scales to deep networks (with `rounds`; `swaps`, `sweeps`, `step` and `lazy`
            have no meaning); "auto" is exact on small networks.
        rounds: By curvature: in how many cuts the architecture is reached; >= 1.
    """

    value: str = "loss"
    n_examples: int = 1000
    swaps: int = 10
    sweeps: int = 1
    step: float = 0.02
    lazy: bool = True
    recalibrate: bool = True
    search: str = "auto"
    rounds: int = 12

    def __post_init__(self) -> None:
        check_common(self.value, self.n_examples, self.step)
        check_search(self.search, self.value)
        if self.rounds < 1:
            raise ImportanceError(f"rounds must be at least 1, got {self.rounds}")
        for name in ("swaps", "sweeps"):
            if getattr(self, name) < 0:
                raise ImportanceError(f"{name} must be at least 0, got {getattr(self, name)}")


@register(
    "greedy",
    "cuts the channel that costs least given all cut before, again and again; then exchanges",
    paper="Marill and Green 1963, IEEE Transactions on Information Theory 9 (backward elimination)",
    cost="anew for each architecture: n^2 coalitions a group; of large networks 24 passes over the images",
    version=3,
    needs_data=True,
    needs_gradients=True,
    stochastic=False,
)
class Greedy(Selector):
    """Cuts a small network's groups in forward order, always the channel without which the value is highest.

    Every candidate is judged by running the network without it and without all that was cut before; later
    groups are whole. In each group kept and removed channels are then exchanged as long as that helps. After
    the last group there are further sweeps, in which all other groups are cut: each group is eliminated anew,
    and the better of the old and the new choice, both after exchanges, stays. Of larger networks all groups
    are cut at once; see `shrink`.
    """

    Options = GreedyOptions
    is_kept_in_parts = True

    def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> Kept:
        """Return the kept channels of every group, sorted."""
        context = with_examples(context, self.options.n_examples)
        if not is_exact(context, self.options.search, self.options.value):
            lines = open_lines(self, context, architecture)
            return shrink(context, architecture, self.options.rounds, self.options.recalibrate, lines)
        is_kept = {group.name: np.ones(group.n_channels, dtype=bool) for group in context.grouping.groups}
        groups = [name for name in is_kept if architecture[name] < len(is_kept[name])]
        n_done, n_total = 0, len(groups) * (1 + self.options.sweeps)
        for _ in range(1 + self.options.sweeps):
            has_changed = False
            for name in groups:
                before = is_kept[name]
                values = self._open(context, name, is_kept)
                is_kept[name] = self._choose(values, before, architecture[name])
                has_changed |= not np.array_equal(is_kept[name], before)
                n_done += 1
                if context.progress is not None:
                    context.progress("greedy", n_done, n_total)
            if not has_changed:
                break
        return {name: np.flatnonzero(chosen).tolist() for name, chosen in is_kept.items()}

    def _open(
        self, context: ScoringContext, group: str, is_kept: Mapping[str, NDArray[np.bool_]]
    ) -> CoalitionValues:
        """Return the values of a group's coalitions given what is cut elsewhere."""
        kept = {name: np.flatnonzero(chosen).tolist() for name, chosen in is_kept.items() if not chosen.all()}
        kept.pop(group, None)
        options = self.options
        return open_values(context, group, kept, value=options.value, is_recalibrated=options.recalibrate)

    def _choose(self, values: CoalitionValues, is_kept: NDArray[np.bool_], n_kept: int) -> NDArray[np.bool_]:
        """Return the better of what an elimination from the whole group leads to and of what is kept now."""
        starts = [self._eliminate(values, np.ones_like(is_kept), n_kept)]
        if is_kept.sum() == n_kept:
            starts.insert(0, is_kept)
        found = [exchange(values, start, self.options.swaps) for start in starts]
        return max(found, key=lambda pair: pair[1])[0]  # of equals the first: what is kept now

    def _eliminate(
        self, values: CoalitionValues, is_left: NDArray[np.bool_], n_kept: int
    ) -> NDArray[np.bool_]:
        """Return which channels are left when only so many are."""
        state = Elimination(is_left, self.options.lazy)
        while state.n_left > n_kept:
            n_at_once = max(1, int(self.options.step * state.n_left))
            state.remove(values, state.n_left - n_kept, n_at_once)
        return state.is_left
