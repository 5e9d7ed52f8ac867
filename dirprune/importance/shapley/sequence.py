"""The coalitions that the main estimator asks for: borders first, then sizes where the values vary most."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, islice
from math import comb

import numpy as np

from dirprune.importance.shapley.estimate import Array, Coalitions, borders

GOLDEN = 0.6180339887498949
MAX_LISTED = 200_000
N_TRIES = 10


def border_coalitions(n_channels: int, seed: int) -> Coalitions:
    """Return the empty and the full coalition, all single channels, and all that lack a single one.

    Args:
        seed: Of the order of the channels, so that a budget that ends in between prefers none.
    Returns:
        Shape (2 n_channels + 2, n_channels).
    """
    singles = np.eye(n_channels, dtype=bool)[np.random.default_rng([seed, 0]).permutation(n_channels)]
    return np.concatenate([borders(n_channels), singles, ~singles])


def weigh_sizes(border_values: Array) -> Array:
    """Return how often coalitions of each size 2 .. n_channels - 2 are to be drawn.

    The size s weighs spread(s)^(1/2), where the spread of the values falls exponentially from the one among
    single channels to the one among coalitions that lack one; a fifth of the draws is uniform.

    Args:
        border_values: Of `border_coalitions`, shape (2 n_channels + 2,).
    Returns:
        Probabilities, shape (n_channels - 3,).
    """
    n = len(border_values) // 2 - 1
    spreads = border_values[2:].reshape(2, n).std(1)
    scale = max(float(np.ptp(border_values[2:])), 1e-300)
    decay = float(np.diff(np.log(spreads / scale + 1e-6))[0])
    weights = np.exp(np.clip(decay, -8, 8) / 2 * np.arange(2, n - 1) / n)
    return 0.8 * weights / weights.sum() + 0.2 / len(weights)


def draw_coalitions(n_channels: int, weights: Array, seed: int) -> Iterator[Coalitions]:
    """Yield different coalitions of the sizes 2 .. n_channels - 2 until there are no others.

    Sizes follow a sequence of low discrepancy. Channels are dealt from a shuffled deck (the present ones of
    small, the absent ones of large coalitions), so that each is drawn equally often.

    Args:
        weights: Probabilities of the sizes, shape (n_channels - 3,).
    Yields:
        Shape (n_channels,).
    """
    n = n_channels
    rng = np.random.default_rng([seed, 1])
    strata = {size: _Stratum(n, size, rng) for size in range(2, n - 1)}
    decks = (_Deck(n, rng), _Deck(n, rng))
    cumulated = np.cumsum(weights)
    position = rng.random()
    n_left = sum(comb(n, size) for size in strata)
    while n_left > 0:
        n_left -= 1
        position = (position + GOLDEN) % 1
        size = 2 + min(int(np.searchsorted(cumulated, position * cumulated[-1])), n - 4)
        if strata[size].is_used_up:
            open_sizes = [other for other in strata if not strata[other].is_used_up]
            size = min(open_sizes, key=lambda other: (abs(other - size), other))
        yield strata[size].draw(decks[int(2 * size > n)])


class _Deck:
    """Deals channels; shuffled anew when it is used up, never the same channel twice in a hand."""

    def __init__(self, n_channels: int, rng: np.random.Generator) -> None:
        self.n_channels, self.rng = n_channels, rng
        self.cards: list[int] = []

    def deal(self, n_cards: int) -> list[int]:
        if len(self.cards) < n_cards:
            held = set(self.cards)
            shuffled = self.rng.permutation(self.n_channels).tolist()
            self.cards += [c for c in shuffled if c not in held] + [c for c in shuffled if c in held]
        hand, self.cards = self.cards[:n_cards], self.cards[n_cards:]
        return hand


class _Stratum:
    """All coalitions of a size, drawn without replacement."""

    def __init__(self, n_channels: int, size: int, rng: np.random.Generator) -> None:
        self.n_channels, self.size, self.rng = n_channels, size, rng
        self.is_of_absent = 2 * size > n_channels
        self.n_hand = n_channels - size if self.is_of_absent else size
        self.n_all = comb(n_channels, size)
        self.drawn: set[frozenset[int]] = set()
        self.rest: Iterator[frozenset[int]] | None = None

    @property
    def is_used_up(self) -> bool:
        return len(self.drawn) >= self.n_all

    def draw(self, deck: _Deck) -> Coalitions:
        hand = frozenset(deck.deal(self.n_hand))
        n_tries = N_TRIES if self.n_all <= MAX_LISTED else 1000 * N_TRIES
        for _ in range(n_tries):
            if hand not in self.drawn:
                break
            hand = frozenset(self.rng.permutation(self.n_channels)[: self.n_hand].tolist())
        while hand in self.drawn:
            hand = next(self._list_rest())
        self.drawn.add(hand)
        coalition = np.zeros(self.n_channels, dtype=bool)
        coalition[list(hand)] = True
        return ~coalition if self.is_of_absent else coalition

    def _list_rest(self) -> Iterator[frozenset[int]]:
        if self.rest is None:
            hands = list(map(frozenset, combinations(range(self.n_channels), self.n_hand)))
            self.rest = (hands[place] for place in self.rng.permutation(len(hands)))
        return self.rest


def list_coalitions(n_channels: int, n_coalitions: int, border_values: Array, seed: int) -> Coalitions:
    """Return the first coalitions that follow the borders, shape (at most n_coalitions, n_channels)."""
    if n_channels < 4 or n_coalitions < 1:
        return np.empty((0, n_channels), dtype=bool)
    drawn = draw_coalitions(n_channels, weigh_sizes(border_values), seed)
    return np.stack(list(islice(drawn, n_coalitions)))
