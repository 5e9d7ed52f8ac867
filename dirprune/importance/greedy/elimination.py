"""Backward elimination of one group's channels, and exchanges of kept and removed ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dirprune.importance.coalitions import Coalitions, CoalitionValues

LEAST_REFRESHED = 4
PAIRS_IN_A_ROUND = 256
LEAST_GAIN = 1e-6
"""Exchanges must gain this share of the value, so that rounding never makes them go in circles."""


@dataclass(frozen=True)
class Removal:
    """One channel removed.

    Attributes:
        channel: Which.
        value: The value without it and all that were removed before.
        increase: The loss (minus the value) with it gone less the loss before.
    """

    channel: int
    value: float
    increase: float


class Elimination:
    """What is left of a group, and what each removal was last known to cost.

    Removing a channel mostly costs the more, the less is left beside it. So costs that were known earlier are
    mostly too low, and only the channels whose known costs are the lowest need to be evaluated again: when
    one of them still costs no more than all others were last known to cost, it is the cheapest (lazy
    evaluation, Minoux 1978; exact wherever costs only grow).

    Args:
        is_left: Which of the group's channels are there, shape (n_channels,), bool; not changed.
        is_lazy: Whether to use that; otherwise every channel that is left is evaluated in every round.
    """

    def __init__(self, is_left: NDArray[np.bool_], is_lazy: bool = True) -> None:
        self.is_left = is_left.copy()
        self.is_lazy = is_lazy
        self.increases = np.where(is_left, -np.inf, np.inf)
        """Shape (n_channels,): last known increases of the loss; -inf when never known, inf when removed."""
        self._last: tuple[CoalitionValues, float] | None = None  # the value of what is left, and who said so

    @property
    def n_left(self) -> int:
        """How many channels are left."""
        return int(self.is_left.sum())

    @property
    def lowest(self) -> float:
        """The lowest last known increase; -inf when one was never known, inf when none is left."""
        return float(self.increases.min())

    def remove(
        self,
        values: CoalitionValues,
        n_wanted: int,
        n_at_once: int = 1,
        limit: float = np.inf,
        is_due: bool = False,
    ) -> list[Removal]:
        """Remove the channels whose removal costs least, at least one unless all cost more than the limit.

        Up to `n_at_once` channels are looked for. The first is the cheapest; each other one must cost, given
        those before it, no more than the dearest of twice as many candidates does by itself, and no more
        than the limit, otherwise it stays: of two equal channels that each can be spared, one does.

        Args:
            values: Of this group's coalitions, given what other groups have lost.
            n_wanted: Channels to remove at most; >= 1 and less than are left.
            n_at_once: Channels to remove at most in this round; >= 1.
            limit: The highest increase of the loss that is accepted for any channel.
            is_due: Whether the cheapest channel goes whatever it costs, the limit being for those behind it.
        Returns:
            What was removed, in order; empty when the cheapest channel costs more than the limit and is not
            due.
        """
        n_now = min(n_wanted, n_at_once)
        if self._last is None or self._last[0] is not values:
            self._last = values, float(values.evaluate(self.is_left[None])[0])
        start = self._last[1]
        candidates, first_value = self._refresh(values, start, n_now)
        if self.increases[candidates[0]] > limit and not is_due:
            return []
        bound = min(limit, float(self.increases[candidates[min(2 * n_now, len(candidates)) - 1]]))
        nested = self._without(np.triu(np.ones((n_now, n_now), dtype=bool)).T, candidates[:n_now])
        after = [first_value, *values.evaluate(nested[1:]).tolist()]
        removals: list[Removal] = []
        for channel, value in zip(candidates[:n_now].tolist(), after, strict=True):
            increase = (removals[-1].value if removals else start) - value
            if removals and increase > bound:
                self.increases[channel] = increase
                break
            removals.append(Removal(channel, value, increase))
            self.is_left[channel] = False
            self.increases[channel] = np.inf
            self._last = values, value
        return removals

    def _refresh(self, values: CoalitionValues, start: float, n_now: int) -> tuple[NDArray[np.intp], float]:
        """Evaluate channels anew until the cheapest are among them.

        Returns:
            The channels that were evaluated, cheapest first, and the value without the first of them.
        """
        best = -np.inf
        order = np.argsort(self.increases, kind="stable")[: self.n_left]
        size = max(LEAST_REFRESHED, 2 * n_now, self.n_left // 8) if self.is_lazy else self.n_left
        size = max(size, int(np.isneginf(self.increases).sum()))
        n_fresh = 0
        while n_fresh < len(order):
            part = order[n_fresh : n_fresh + size]
            after = values.evaluate(self._without(np.eye(len(part), dtype=bool), part))
            self.increases[part] = start - after
            best = max(best, float(after.max()))
            n_fresh += len(part)
            known = np.sort(self.increases[order[:n_fresh]])
            rest = self.increases[order[n_fresh:]]
            if len(rest) == 0 or known[min(n_now, n_fresh) - 1] <= rest.min():
                break
        fresh = order[:n_fresh]
        return fresh[np.argsort(self.increases[fresh], kind="stable")], best

    def _without(self, chosen: NDArray[np.bool_], channels: NDArray[np.intp]) -> Coalitions:
        """Return what is left less the channels that each row chooses, shape (n_rows, n_channels)."""
        coalitions = np.repeat(self.is_left[None], len(chosen), axis=0)
        rows, places = np.nonzero(chosen)
        coalitions[rows, channels[places]] = False
        return coalitions


def exchange(
    values: CoalitionValues, is_kept: NDArray[np.bool_], n_rounds: int
) -> tuple[NDArray[np.bool_], float]:
    """Exchange kept and removed channels as long as the value rises.

    A round tries pairs: all of them, or in wide groups those of the removed channels that gain most and the
    kept ones that cost least by themselves. The best pairs without a common channel are then made one after
    the other, as many of them as together gain most.

    Args:
        values: Of the group's coalitions.
        is_kept: Shape (n_channels,), bool; not changed.
        n_rounds: At most; >= 0.
    Returns:
        The kept channels, as many as before, and their value.
    """
    kept = is_kept.copy()
    best = float(values.evaluate(kept[None])[0])
    for _ in range(n_rounds):
        inside, outside = _shortlist(values, kept)
        pairs = np.array(list(itertools.product(inside, outside)), dtype=int)
        if len(pairs) == 0:
            break
        gains = values.evaluate(_exchanged(kept, pairs)) - best
        found = _disjoint(pairs[np.argsort(-gains, kind="stable")], int((gains > 0).sum()))
        if len(found) == 0:
            break
        nested = np.array([_apply(kept, found[: n + 1]) for n in range(len(found))])
        after = values.evaluate(nested)
        winner = int(after.argmax())
        if after[winner] <= best + LEAST_GAIN * abs(best):
            break
        kept, best = nested[winner], float(after[winner])
    return kept, best


def _shortlist(values: CoalitionValues, kept: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the kept and the removed channels that are worth trying in pairs."""
    inside, outside = np.flatnonzero(kept), np.flatnonzero(~kept)
    if len(inside) * len(outside) <= PAIRS_IN_A_ROUND:
        return inside, outside
    flipped = values.evaluate(kept ^ np.eye(len(kept), dtype=bool))
    n_each = int(PAIRS_IN_A_ROUND**0.5)
    n_outside = min(len(outside), max(n_each, PAIRS_IN_A_ROUND // len(inside)))
    n_inside = min(len(inside), PAIRS_IN_A_ROUND // n_outside)
    return (
        inside[np.argsort(-flipped[inside], kind="stable")[:n_inside]],
        outside[np.argsort(-flipped[outside], kind="stable")[:n_outside]],
    )


def _exchanged(kept: NDArray[np.bool_], pairs: NDArray[np.int_]) -> Coalitions:
    """Return one coalition for each pair of a channel that leaves and one that enters."""
    coalitions = np.repeat(kept[None], len(pairs), axis=0)
    rows = np.arange(len(pairs))
    coalitions[rows, pairs[:, 0]] = False
    coalitions[rows, pairs[:, 1]] = True
    return coalitions


def _apply(kept: NDArray[np.bool_], pairs: NDArray[np.int_]) -> NDArray[np.bool_]:
    result = kept.copy()
    result[pairs[:, 0]] = False
    result[pairs[:, 1]] = True
    return result


def _disjoint(pairs: NDArray[np.int_], n_first: int) -> NDArray[np.int_]:
    """Return those of the first pairs that share no channel with an earlier one of them."""
    seen: set[int] = set()
    chosen = []
    for leaves, enters in pairs[:n_first].tolist():
        if seen.isdisjoint((leaves, enters)):
            seen.update((leaves, enters))
            chosen.append((leaves, enters))
    return np.array(chosen, dtype=int).reshape(-1, 2)
