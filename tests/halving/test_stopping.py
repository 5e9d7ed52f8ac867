"""Halving on the Pareto front: who goes on, whatever the units and the order of reports."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dirprune.halving import StoppingHalving
from dirprune.pareto import dominates

LOSS = st.integers(0, 1000).map(float)
PAIRS = st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=14)
FACTORS = st.sampled_from([1.5, 2.0, 3.0, 4.0])


def report_all(table: list[tuple[float, ...]], factor: float = 2.0, minimum: int = 4) -> list[bool]:
    halving = StoppingHalving((0,), factor, minimum)
    return [halving.report(number, 0, losses) for number, losses in enumerate(table)]


@given(PAIRS, FACTORS)
def test_a_newcomer_that_dominates_all_others_is_never_stopped(table, factor) -> None:
    best = tuple(min(losses[axis] for losses in table) - 1 for axis in (0, 1))
    assert report_all([*table, best], factor, minimum=1)[-1]


@given(PAIRS, FACTORS)
def test_a_trial_that_nobody_dominates_is_never_stopped(table, factor) -> None:
    decisions = report_all(table, factor, minimum=1)
    for place, goes_on in enumerate(decisions):
        earlier = table[:place]
        if not any(dominates(other, table[place]) for other in earlier):
            assert goes_on


@given(PAIRS, FACTORS)
def test_of_all_at_a_rung_one_in_so_many_goes_on_if_it_is_the_last_to_come(table, factor) -> None:
    n_going_on = 0
    for last, losses in enumerate(table):
        halving = StoppingHalving((0,), factor, minimum=1)
        for number, others in enumerate(table):
            halving.remember(number, 0, others)
        n_going_on += halving.report(last, 0, losses)
    assert n_going_on >= math.ceil(len(table) / factor)


@given(st.lists(st.tuples(LOSS, LOSS), min_size=1, max_size=4), FACTORS)
def test_no_rung_starves_when_trials_come_in_random_order(table, factor) -> None:
    orders = list(itertools.permutations(range(len(table))))
    n_going_on = 0
    for order in orders:
        halving = StoppingHalving((0,), factor, minimum=1)
        n_going_on += sum(halving.report(number, 0, table[number]) for number in order)
    assert n_going_on * factor >= len(orders) * len(table)


@given(st.integers(4, 30), st.sampled_from([2.0, 3.0, 4.0]), st.integers(1, 6))
def test_trials_that_come_ever_worse_end_but_for_the_first_ones(n_trials, factor, minimum) -> None:
    decisions = report_all([(float(number), float(number)) for number in range(n_trials)], factor, minimum)
    n_first = max(1, min(n_trials, minimum - 1))
    assert decisions == [True] * n_first + [False] * (n_trials - n_first)


@given(st.lists(LOSS, min_size=1, max_size=20), FACTORS, st.integers(1, 6))
def test_with_one_objective_it_agrees_with_plain_asynchronous_halving(losses, factor, minimum) -> None:
    decisions = report_all([(loss,) for loss in losses], factor, minimum)
    for place, loss in enumerate(losses):
        so_far = losses[: place + 1]
        order = sorted(range(len(so_far)), key=lambda number: (so_far[number], number))
        is_top = order.index(place) < math.ceil(len(so_far) / factor)
        assert decisions[place] == (is_top or len(so_far) < minimum or loss == min(so_far))


@given(PAIRS, st.sampled_from([2.0**-10, 0.5, 8.0, 2.0**20]), st.integers(-1000, 1000))
def test_units_and_origin_of_an_objective_do_not_matter(table, unit, origin) -> None:
    changed = [(first, second * unit + origin * unit) for first, second in table]
    assert report_all(changed) == report_all(table)


@given(PAIRS)
def test_the_order_of_objectives_does_not_matter(table) -> None:
    assert report_all([losses[::-1] for losses in table]) == report_all(table)


@given(PAIRS, st.data())
def test_the_last_decision_does_not_depend_on_the_order_of_earlier_reports(table, data) -> None:
    earlier = data.draw(st.permutations(range(len(table) - 1)))
    halving = StoppingHalving((0,))
    for number in earlier:
        halving.report(number, 0, table[number])
    assert halving.report(len(table) - 1, 0, table[-1]) == report_all(table)[-1]


def test_decisions_of_a_hand_made_rung() -> None:
    table = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0), (0.0, 0.0), (2.5, 2.5)]
    # the first three are too few to compare; the fourth is in place 3 of 4; the fifth is the front;
    # the sixth is in place 3 (0, 1, 2 are before it) of 6, and the best 3 go on
    assert report_all(table) == [True, True, True, False, True, False]


def test_within_a_rank_the_larger_hypervolume_contribution_goes_on() -> None:
    # ranks: trials 0 is the front; 1, 2, 3 share rank 1; the best two of four go on
    crowded = [(0.0, 0.0), (1.0, 10.0), (10.0, 1.0), (9.0, 2.0)]
    alone = [(0.0, 0.0), (1.0, 10.0), (10.0, 1.0), (3.0, 3.0)]
    assert not report_all(crowded)[-1]
    assert report_all(alone)[-1]


def test_equal_trials_are_told_apart_by_their_number() -> None:
    halving = StoppingHalving((0,), reduction_factor=4.0, minimum=1)
    halving.report(0, 0, [0.0])
    assert not halving.report(9, 0, [1.0])  # place 1 of 2, one goes on
    for number in (1, 2, 3, 4):
        halving.report(number, 0, [5.0])
    assert halving.report(8, 0, [1.0])  # place 1 of 7, two go on: before the equal trial 9
    assert not halving.report(9, 0, [1.0])


def test_fewer_than_the_minimum_always_go_on() -> None:
    assert (
        report_all([(float(number),) for number in range(6)], factor=100.0, minimum=5)
        == [True] * 4 + [False] * 2
    )


def test_rungs_are_compared_apart() -> None:
    halving = StoppingHalving((0, 100), minimum=2)
    assert halving.report(0, 0, [0.0])
    assert halving.report(1, 100, [5.0])
    assert not halving.report(2, 0, [1.0])


def test_a_second_report_replaces_the_first() -> None:
    halving = StoppingHalving((0,), minimum=1)
    halving.report(0, 0, [0.0])
    assert not halving.report(1, 0, [1.0])
    halving.report(0, 0, [9.0])
    assert halving.report(1, 0, [1.0])
    # had the reports been counted twice, five would be there and the worst of two in place 1 of ceil(5 / 2)
    assert not halving.report(0, 0, [9.0])


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_losses_that_are_not_finite_raise_and_are_not_kept(loss) -> None:
    halving = StoppingHalving((0,), minimum=2)
    with pytest.raises(
        ValueError, match=r"expected finite losses of trial 3 at rung 0, got \[1\.0, (nan|inf)\]"
    ):
        halving.report(3, 0, [1.0, loss])
    assert halving.report(4, 0, [1.0])


def test_unknown_rung_and_other_number_of_losses_raise() -> None:
    halving = StoppingHalving((0, 10))
    with pytest.raises(ValueError, match=r"expected one of the rungs \[0, 10\], got 5"):
        halving.report(0, 5, [1.0])
    halving.report(0, 0, [1.0, 2.0])
    with pytest.raises(ValueError, match="expected 2 losses of trial 1, got 1"):
        halving.report(1, 0, [1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((10, 10),), r"expected increasing rungs >= 0, got \[10, 10\]"),
        (((-1, 10),), r"expected increasing rungs >= 0, got \[-1, 10\]"),
        (((0,), 1.0), "expected a reduction factor > 1, got 1.0"),
        (((0,), math.nan), "expected a reduction factor > 1, got nan"),
        (((0,), 2.0, 0), "expected a minimum of at least 1 trial, got 0"),
    ],
)
def test_settings_out_of_range_raise(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        StoppingHalving(*arguments)


def test_no_rungs_are_allowed() -> None:
    assert StoppingHalving(()).rungs == ()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=20))
def test_remembered_losses_count_as_reported_ones_do(reports):
    told, resumed = StoppingHalving([0]), StoppingHalving([0])
    for trial, losses in enumerate(reports[:-1]):
        told.report(trial, 0, losses)
        resumed.remember(trial, 0, losses)
    assert resumed.report(99, 0, reports[-1]) == told.report(99, 0, reports[-1])
