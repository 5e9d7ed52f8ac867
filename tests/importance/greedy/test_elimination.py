"""Backward elimination and exchanges, on games that can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dirprune.importance.greedy.elimination import Elimination, exchange
from tests.importance.greedy.games import Game, additive, covering, random_covering


def eliminate(game: Game, n_kept: int, n_at_once: int = 1, is_lazy: bool = True) -> list[int]:
    """Return the removed channels in their order."""
    state = Elimination(np.ones(game.n_channels, dtype=bool), is_lazy)
    removed = []
    while state.n_left > n_kept:
        removed += [r.channel for r in state.remove(game, state.n_left - n_kept, n_at_once)]
    return removed


def to_mask(n_channels: int, kept: list[int]) -> np.ndarray:
    return np.isin(np.arange(n_channels), kept)


@pytest.mark.parametrize("n_at_once", [1, 3])
def test_additive_game_loses_its_cheapest_channels_in_order(n_at_once: int) -> None:
    assert eliminate(additive([5, 1, 4, -2, 3]), 1, n_at_once) == [3, 1, 4, 2]


def test_additive_game_ends_in_the_best_of_all_coalitions() -> None:
    rng = np.random.default_rng(0)
    game = additive(rng.standard_normal(7).tolist())
    removed = eliminate(game, 3)
    best = max(itertools.combinations(range(7), 3), key=lambda kept: game.value(to_mask(7, list(kept))))
    assert sorted(set(range(7)) - set(removed)) == list(best)


@pytest.mark.parametrize("n_at_once", [1, 2])
@pytest.mark.parametrize("is_lazy", [True, False])
def test_one_of_two_equal_channels_stays(n_at_once: int, is_lazy: bool) -> None:
    # Channels 0 and 1 both cover what is worth 10: alone each can be spared, together they cannot.
    covered = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=bool)
    removed = eliminate(covering(covered, np.array([10.0, 1, 2, 3])), 2, n_at_once, is_lazy)
    assert len({0, 1} & set(removed)) == 1
    assert set(removed) - {0, 1} == {2, 3}


def test_cancelling_pair_is_not_broken_while_something_cheaper_is_left() -> None:
    # Channels 0 and 1 harm when alone and are worth nothing together.
    game = Game(5, lambda c: -10.0 * (c[0] != c[1]) + float(np.array([0, 0, 1, 2, 3])[c].sum()))
    assert eliminate(game, 2) == [2, 3, 4]


def test_removal_tells_value_and_increase() -> None:
    state = Elimination(np.array([True, True, False, True]))
    (removal,) = state.remove(additive([5, 1, 0, 4]), 1)
    assert (removal.channel, removal.value, removal.increase) == (1, 9.0, 1.0)
    assert state.is_left.tolist() == [True, False, False, True]
    assert state.lowest == 4.0


def test_nothing_is_removed_above_the_limit_but_costs_are_known() -> None:
    state = Elimination(np.ones(3, dtype=bool))
    assert state.remove(additive([3, 2, 4]), 2, 2, limit=1.9) == []
    assert state.lowest == 2.0
    assert [removal.channel for removal in state.remove(additive([3, 2, 4]), 2, 2, limit=2.5)] == [1]


def test_a_channel_that_is_due_goes_above_the_limit_and_those_behind_it_do_not() -> None:
    state = Elimination(np.ones(3, dtype=bool))
    assert [r.channel for r in state.remove(additive([3, 2, 4]), 2, 2, limit=1.9, is_due=True)] == [1]


@pytest.mark.parametrize("seed", range(5))
def test_lazy_removes_the_same_where_costs_only_grow_and_evaluates_less(seed: int) -> None:
    lazy, plain = random_covering(40, seed), random_covering(40, seed)
    assert eliminate(lazy, 4) == eliminate(plain, 4, is_lazy=False)
    assert lazy.n_evaluated < 0.75 * plain.n_evaluated


def test_wide_group_takes_few_evaluations_when_many_may_go_at_once() -> None:
    game = additive(np.random.default_rng(0).random(512).tolist())
    state = Elimination(np.ones(512, dtype=bool))
    while state.n_left > 256:
        state.remove(game, state.n_left - 256, max(1, state.n_left // 20))
    assert game.n_evaluated < 3 * 512


def make_mistake() -> Game:
    """Backward elimination spares 2 first, whose points the others cover; alone it is worth most."""
    covered = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 0]], dtype=bool)
    return covering(covered, np.array([1.0, 1, 1, 1, 1, 1.5]))


def test_exchange_repairs_a_mistake_of_elimination() -> None:
    game = make_mistake()
    removed = eliminate(game, 1)
    assert removed == [2, 0]
    kept, value = exchange(game, to_mask(3, [1]), 1)
    assert kept.tolist() == [False, False, True]
    assert value == 4.0


@pytest.mark.parametrize("kept", [[], [0, 1, 2]])
def test_exchange_has_nothing_to_do_with_none_or_all(kept: list[int]) -> None:
    assert exchange(make_mistake(), to_mask(3, kept), 5)[0].tolist() == to_mask(3, kept).tolist()


def test_no_rounds_exchange_nothing() -> None:
    assert exchange(make_mistake(), to_mask(3, [1]), 0)[0].tolist() == [False, True, False]


def test_exchange_finds_the_best_coalition_of_a_wide_additive_group() -> None:
    weights = np.random.default_rng(1).permutation(60).astype(float)
    worst = weights < 25
    kept, value = exchange(additive(weights.tolist()), worst, 20)
    assert set(weights[kept]) == set(range(35, 60))
    assert value == sum(range(35, 60))


def test_exchange_stops_at_gains_that_are_only_rounding() -> None:
    game = Game(4, lambda coalition: -1.0 + 1e-9 * float(coalition[3]))
    assert exchange(game, to_mask(4, [0]), 5)[0].tolist() == [True, False, False, False]
