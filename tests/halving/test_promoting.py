"""Promotion on the Pareto front: the best paused trials go on, none is left behind, and no rung starves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.halving import PromotingHalving, StoppingHalving
from dirprune.halving.ranking import order_best
from dirprune.pareto import dominates, to_losses

LOSS = st.integers(0, 1000).map(float)
PAIRS = st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=14)
FACTORS = st.sampled_from([2.0, 3.0, 4.0])


def promote_all(halving: PromotingHalving) -> list[int]:
    promoted = []
    while (trial := halving.next_promotion()) is not None:
        promoted.append(trial)
    return promoted


def remember_all(halving: PromotingHalving, table: list[tuple[float, ...]], rung: int = 0) -> None:
    for number, losses in enumerate(table):
        halving.remember(number, rung, losses)


@given(PAIRS, FACTORS)
def test_one_in_so_many_goes_on_once(table, factor) -> None:
    halving = PromotingHalving((0,), factor)
    remember_all(halving, table)
    promoted = promote_all(halving)
    assert len(promoted) == len(set(promoted)) == math.floor(len(table) / factor)


@given(PAIRS, FACTORS)
def test_a_trial_that_dominates_all_others_is_the_next_one(table, factor) -> None:
    best = tuple(min(losses[axis] for losses in table) - 1 for axis in (0, 1))
    halving = PromotingHalving((0,), factor)
    remember_all(halving, [*table, best])
    if len(table) + 1 >= factor:
        assert halving.next_promotion() == len(table)


@given(PAIRS, FACTORS)
def test_nobody_is_promoted_before_one_that_dominates_it(table, factor) -> None:
    halving = PromotingHalving((0,), factor)
    remember_all(halving, table)
    promoted = promote_all(halving)
    for place, trial in enumerate(promoted):
        others = set(range(len(table))) - set(promoted[:place])
        assert not any(dominates(table[other], table[trial]) for other in others)


class PlainPromotion:
    """Algorithm 2 of Li et al. 2020 for one loss, written down directly."""

    def __init__(self, n_rungs: int, factor: float) -> None:
        self.rungs: list[dict[int, float]] = [{} for _ in range(n_rungs)]
        self.promoted: list[set[int]] = [set() for _ in range(n_rungs)]
        self.factor = factor

    def next(self) -> int | None:
        for rung in reversed(range(len(self.rungs))):
            reached = sorted(self.rungs[rung], key=lambda trial: (self.rungs[rung][trial], trial))
            for trial in reached[: int(len(reached) // self.factor)]:
                if trial not in self.promoted[rung]:
                    self.promoted[rung].add(trial)
                    return trial
        return None


@given(st.lists(st.lists(LOSS, min_size=3, max_size=3), min_size=1, max_size=30), FACTORS)
def test_with_one_objective_it_is_plain_asynchronous_halving(curves, factor) -> None:
    ours, plain = PromotingHalving((0, 10, 20), factor), PlainPromotion(3, factor)
    reached: dict[int, int] = {}
    for number in range(len(curves)):
        trial = number  # a new one, and then whatever may go on
        while trial is not None:
            level = reached[trial] = reached.get(trial, -1) + 1
            if level < 3:
                ours.remember(trial, ours.rungs[level], [curves[trial][level]])
                plain.rungs[level][trial] = curves[trial][level]
            expected = plain.next()
            assert ours.next_promotion() == expected
            trial = expected


@given(PAIRS, st.sampled_from([2.0**-10, 8.0]), st.integers(-1000, 1000), st.data())
def test_units_origins_and_the_order_of_reports_do_not_matter(table, unit, origin, data) -> None:
    halving, other = PromotingHalving((0,)), PromotingHalving((0,))
    remember_all(halving, table)
    for number in data.draw(st.permutations(range(len(table)))):
        first, second = table[number]
        other.remember(number, 0, (first, second * unit + origin * unit))
    assert promote_all(other) == promote_all(halving)


@pytest.mark.slow
@given(st.integers(30, 60), FACTORS, st.randoms())
def test_no_rung_starves(n_trials, factor, random) -> None:
    halving = PromotingHalving((0, 1, 2), factor)
    counts = [0, 0, 0]
    reached: dict[int, int] = {}
    for number in range(n_trials):
        trial = number
        while trial is not None:
            level = reached[trial] = reached.get(trial, -1) + 1
            if level < 3:
                halving.remember(trial, level, (random.random(), random.random()))
                counts[level] += 1
            trial = halving.next_promotion()
    for lower, upper in ((0, 1), (1, 2)):
        assert counts[upper] >= math.floor(counts[lower] / factor)


def test_a_trial_becomes_one_of_the_best_when_worse_ones_come() -> None:
    halving = PromotingHalving((0,), 2.0)
    assert not halving.report(0, 0, (1.0, 1.0))
    assert halving.report(1, 0, (0.0, 0.0))
    assert halving.next_promotion() is None
    assert not halving.report(2, 0, (5.0, 5.0))
    assert not halving.report(3, 0, (6.0, 6.0))
    assert halving.next_promotion() == 0
    assert halving.next_promotion() is None


def test_the_highest_rung_comes_first() -> None:
    halving = PromotingHalving((0, 10), 2.0)
    for number in range(4):
        halving.resume(number, 0, (float(number), 0.0), is_paused=number > 1)
    remember_all(halving, [(0.0, 0.0), (1.0, 1.0)], rung=10)
    assert halving.next_promotion() == 0


def test_a_promoted_trial_that_reports_again_goes_on() -> None:
    halving = PromotingHalving((0,), 2.0)
    halving.report(0, 0, (1.0, 1.0))
    assert halving.report(1, 0, (0.0, 0.0))
    assert halving.report(1, 0, (0.5, 0.5))
    assert halving.next_promotion() is None


def test_a_resumed_study_promotes_nobody_twice() -> None:
    halving = PromotingHalving((0,), 2.0)
    halving.resume(0, 0, (0.0, 0.0), is_paused=False)
    halving.resume(1, 0, (1.0, 1.0), is_paused=True)
    assert halving.next_promotion() is None
    halving.resume(2, 0, (2.0, 2.0), is_paused=True)
    halving.resume(3, 0, (3.0, 3.0), is_paused=True)
    assert halving.next_promotion() == 1


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_a_failure_and_no_rank(loss) -> None:
    halving = PromotingHalving((0,))
    with pytest.raises(ValueError, match="expected finite losses of trial 0"):
        halving.report(0, 0, (0.0, loss))
    assert halving.next_promotion() is None


def test_places_and_items_are_not_mixed_up() -> None:
    """A ranking that takes the item in place k for the place of item k would let the last of these go on.

    That is what a published multi-objective halving does: it sorts, and reads the sorted indices as
    priorities. Where sorting is its own inverse it does not show; a cycle of three is the smallest case.
    """
    table = [(2.0, 2.0), (0.0, 0.0), (1.0, 1.0)]
    order = list(order_best(to_losses(table, ("minimize", "minimize"))))
    assert order == [1, 2, 0]
    priorities = [order.index(item) for item in range(3)]
    assert priorities == [2, 0, 1] != order
    stopping = StoppingHalving((0,), 3.0, minimum=1)
    for number in (0, 1):
        stopping.remember(number, 0, table[number])
    assert not stopping.report(2, 0, table[2])
    promoting = PromotingHalving((0,), 3.0)
    remember_all(promoting, table)
    assert promoting.next_promotion() == 1
