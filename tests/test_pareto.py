"""Dominance, front, ranks and hypervolume, with moocore and without."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dirprune import pareto
from dirprune.pareto import (
    dominates,
    front_mask,
    hypervolume,
    hypervolume_contributions,
    interval_front_mask,
    nondominated_rank,
    to_losses,
)

FRONT = np.array([[5.0, 5.0], [4.0, 6.0], [2.0, 7.0], [7.0, 4.0]])


@pytest.fixture(params=["moocore", "numpy"], autouse=True)
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test on moocore and on the numpy versions."""
    if request.param == "numpy":
        monkeypatch.setattr(pareto, "moocore", None)
    elif pareto.moocore is None:
        pytest.skip("moocore is not installed")


def tables(max_points: int = 7, max_objectives: int = 4, min_points: int = 0) -> st.SearchStrategy:
    """Draw losses on a coarse grid, so that ties and copies are common."""
    shapes = st.tuples(st.integers(min_points, max_points), st.integers(1, max_objectives))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.integers(0, 5).map(float)))


def volume_by_inclusion_and_exclusion(points: np.ndarray, corner: np.ndarray) -> float:
    """Return the hypervolume by the definition of a union of boxes, for few points."""
    inside = [point for point in points if np.all(point < corner)]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for chosen in itertools.combinations(inside, size):
            total -= (-1) ** size * np.prod(corner - np.max(chosen, axis=0))
    return float(total)


def test_maximised_objectives_change_their_sign() -> None:
    losses = to_losses([[0.9, 100], [0.0, 50]], ["maximize", "minimize"])
    assert losses.tolist() == [[-0.9, 100.0], [0.0, 50.0]]
    assert not np.signbit(losses[1, 0])


def test_one_point_becomes_a_table_of_one_row() -> None:
    assert to_losses([1.0, 2.0], ["minimize", "minimize"]).tolist() == [[1.0, 2.0]]


def test_no_points_become_an_empty_table() -> None:
    assert to_losses([], ["minimize", "maximize"]).shape == (0, 2)


def test_to_losses_leaves_its_input_alone() -> None:
    values = np.array([[1.0]])
    to_losses(values, ["maximize"])
    assert values.tolist() == [[1.0]]


def test_unknown_direction_and_wrong_number_of_objectives_raise() -> None:
    with pytest.raises(ValueError, match=r"expected the direction 'maximize' or 'minimize', got 'max'"):
        to_losses([[1.0]], ["max"])
    with pytest.raises(ValueError, match=r"expected 2 objectives per point, got values of shape \(1, 3\)"):
        to_losses([[1.0, 2.0, 3.0]], ["minimize", "minimize"])


def test_a_point_dominates_when_no_worse_everywhere_and_better_somewhere() -> None:
    assert dominates([1, 2], [1, 3])
    assert not dominates([1, 2], [1, 2])
    assert not dominates([1, 3], [2, 1])


def test_every_copy_of_a_front_point_is_on_the_front() -> None:
    assert front_mask([[0, 1], [1, 0], [1, 0], [1, 1]]).tolist() == [True, True, True, False]


def test_ranks_of_a_hand_made_table() -> None:
    losses = [[2, 2], [0, 1], [1, 0], [3, 3], [1, 1], [1, 0]]
    assert nondominated_rank(losses).tolist() == [2, 0, 0, 3, 1, 0]


def test_hypervolume_of_a_hand_made_front() -> None:
    # columns of width 3, 1, 2 and 2 from the reference (10, 10): 3*6 + 2*5 + 1*4 + 2*3 = 38
    assert hypervolume(FRONT, [10, 10]) == 38.0


def test_contributions_of_a_hand_made_front() -> None:
    assert hypervolume_contributions(FRONT, [10, 10]).tolist() == [2.0, 1.0, 6.0, 3.0]


def test_dominated_points_and_copies_contribute_nothing_and_shadow_others() -> None:
    losses = [[5, 1], [1, 5], [4, 2], [4, 4], [5, 1]]
    assert hypervolume_contributions(losses, [6, 6]).tolist() == [0.0, 3.0, 2.0, 0.0, 0.0]


def test_points_that_do_not_strictly_dominate_the_reference_count_zero() -> None:
    assert hypervolume([[1.0, 0.0], [0.0, 1.0], [2.0, -5.0], [np.inf, 0.0]], [1.0, 1.0]) == 0.0
    assert hypervolume_contributions([[1.0, 0.0], [0.5, 0.5]], [1.0, 1.0]).tolist() == [0.0, 0.25]


def test_empty_tables_have_empty_results() -> None:
    empty = np.zeros((0, 2))
    assert front_mask(empty).shape == nondominated_rank(empty).shape == (0,)
    assert hypervolume(empty, [1, 1]) == 0.0
    assert hypervolume_contributions(empty, [1, 1]).shape == (0,)


@pytest.mark.parametrize("function", [front_mask, nondominated_rank])
def test_nan_and_lists_of_numbers_raise(function) -> None:
    with pytest.raises(ValueError, match="expected losses without NaN"):
        function([[0.0, np.nan]])
    with pytest.raises(ValueError, match=r"expected losses of shape \(n_points, n_objectives\), got \(2,\)"):
        function([0.0, 1.0])


def test_reference_point_must_fit_and_be_finite() -> None:
    with pytest.raises(ValueError, match=r"expected a reference point of 2 finite losses, got \[1.0\]"):
        hypervolume([[0.0, 0.0]], [1.0])
    with pytest.raises(ValueError, match="expected a reference point of 2 finite losses"):
        hypervolume([[0.0, 0.0]], [1.0, np.inf])
    with pytest.raises(ValueError, match="their hypervolume would be infinite"):
        hypervolume([[-np.inf, 0.0]], [1.0, 1.0])


@given(tables())
def test_front_is_what_no_other_point_dominates(losses: np.ndarray) -> None:
    expected = [not any(dominates(other, point) for other in losses) for point in losses]
    assert front_mask(losses).tolist() == expected


@given(tables())
def test_rank_is_the_front_left_after_taking_the_better_ranks_away(losses: np.ndarray) -> None:
    rank = nondominated_rank(losses)
    for place in range(len(losses)):
        left = losses[rank >= rank[place]]
        assert not any(dominates(other, losses[place]) for other in left)
        if rank[place] > 0:
            above = losses[rank == rank[place] - 1]
            assert any(dominates(other, losses[place]) for other in above)


@given(tables(), st.randoms(use_true_random=False))
def test_rank_goes_with_the_point_and_not_with_the_place(losses: np.ndarray, random) -> None:
    order = list(range(len(losses)))
    random.shuffle(order)
    assert nondominated_rank(losses[order]).tolist() == nondominated_rank(losses)[order].tolist()


@given(tables())
def test_order_by_rank_and_its_inverse_are_permutations(losses: np.ndarray) -> None:
    order = np.argsort(nondominated_rank(losses), kind="stable")
    place = np.argsort(order)
    assert order[place].tolist() == place[order].tolist() == list(range(len(losses)))


@given(tables())
@settings(max_examples=60)
def test_hypervolume_equals_brute_force(losses: np.ndarray) -> None:
    corner = np.full(losses.shape[1], 4.0)
    assert hypervolume(losses, corner) == pytest.approx(volume_by_inclusion_and_exclusion(losses, corner))


@given(tables(min_points=1))
def test_hypervolume_never_falls_when_a_point_is_added(losses: np.ndarray) -> None:
    corner = np.full(losses.shape[1], 4.0)
    assert hypervolume(losses, corner) >= hypervolume(losses[:-1], corner) - 1e-9


@given(tables(min_points=1))
@settings(max_examples=60)
def test_contribution_is_what_is_lost_without_the_point(losses: np.ndarray) -> None:
    corner = np.full(losses.shape[1], 4.0)
    whole = hypervolume(losses, corner)
    expected = [whole - hypervolume(np.delete(losses, place, axis=0), corner) for place in range(len(losses))]
    assert hypervolume_contributions(losses, corner) == pytest.approx(np.array(expected), abs=1e-9)


@st.composite
def tables_of_intervals(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Draw losses of which the first has a width."""
    low = draw(tables(min_points=1))
    high = low.copy()
    high[:, 0] += draw(arrays(np.float64, len(low), elements=st.integers(0, 3).map(float)))
    return low, high


@given(tables_of_intervals())
def test_front_of_intervals_dominates_all_others_and_none_of_its_own(
    intervals: tuple[np.ndarray, np.ndarray],
) -> None:
    low, high = intervals
    is_front = interval_front_mask(low, high)

    def beats(a: int, b: int) -> bool:
        return bool(np.all(low[a] <= high[b]) and np.any(high[a] < low[b]))

    front = np.flatnonzero(is_front)
    assert len(front) > 0
    for point in range(len(low)):
        assert any(beats(member, point) for member in front) != is_front[point]


@given(tables())
def test_front_of_intervals_without_width_is_the_front(losses: np.ndarray) -> None:
    assert interval_front_mask(losses, losses).tolist() == front_mask(losses).tolist()


def test_overlapping_intervals_are_equal_and_who_is_beaten_beats_nobody() -> None:
    low = np.array([[1.0, 0.1], [1.5, 0.2], [0.5, 0.3]])
    high = np.array([[2.0, 0.1], [2.5, 0.2], [1.6, 0.3]])
    assert interval_front_mask(low, high).tolist() == [True, False, False]
    high[2, 0] = 0.9  # now surely faster than the first, and no longer beaten by what the first beats
    assert interval_front_mask(low, high).tolist() == [True, False, True]


def test_intervals_that_could_go_round_in_a_circle_are_refused() -> None:
    with pytest.raises(ValueError, match="intervals in one objective at most"):
        interval_front_mask([[0.0, 0.0]], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="from low to high"):
        interval_front_mask([[1.0]], [[0.0]])
