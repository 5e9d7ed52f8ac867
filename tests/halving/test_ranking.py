"""The order of trials at a rung: asked for one trial or for all it is the same, however many there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dirprune.halving import ranking
from dirprune.halving.ranking import MAX_PEERS, MAX_PEERS_BEYOND, is_among_best, order_best
from dirprune.pareto import nondominated_rank

TABLES = st.integers(1, 5).flatmap(
    lambda n: arrays(
        np.float64, st.tuples(st.integers(1, 12), st.just(n)), elements=st.integers(0, 4).map(float)
    )
)


@given(TABLES, st.data(), st.sampled_from([MAX_PEERS_BEYOND, 3]))
def test_one_trial_is_asked_for_as_all_are(losses, data, most) -> None:
    n_best = data.draw(st.integers(1, len(losses)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ranking, "MAX_PEERS", {2: None})
        patched.setattr(ranking, "MAX_PEERS_BEYOND", most)
        best = set(itertools.islice(order_best(losses), n_best))
        assert {row for row in range(len(losses)) if is_among_best(losses, row, n_best)} == best


@given(TABLES)
def test_no_trial_comes_before_one_of_a_better_rank(losses) -> None:
    order = list(order_best(losses))
    assert sorted(order) == list(range(len(losses)))
    ranks = nondominated_rank(losses)[order]
    assert (np.diff(ranks) >= 0).all()


def draw_front(n: int, n_objectives: int) -> np.ndarray:
    """Return points of which none dominates another."""
    return np.random.default_rng(0).dirichlet(np.ones(n_objectives), n)


@pytest.mark.parametrize("n_objectives", [3, 5])
def test_of_too_many_for_contributions_the_lonely_come_first(n_objectives) -> None:
    n = 1 + MAX_PEERS.get(n_objectives, MAX_PEERS_BEYOND)
    front = draw_front(n, n_objectives)
    crowd = front * 0.01 + 0.99 / n_objectives  # about the middle
    alone = np.eye(n_objectives)
    losses = np.concatenate([crowd, alone])
    first = list(itertools.islice(order_best(losses), n_objectives))
    assert set(first) == set(range(n, n + n_objectives))
    scaled = losses * 10.0 ** np.arange(n_objectives)
    assert list(order_best(scaled)) == list(order_best(losses))


def test_ten_thousand_trials_of_five_objectives_are_ordered() -> None:
    """By contributions alone this would take hours."""
    losses = draw_front(10_000, 5)
    order = list(order_best(losses))
    assert sorted(order) == list(range(10_000))
    assert is_among_best(losses, order[4_999], 5_000)
    assert not is_among_best(losses, order[5_000], 5_000)


def test_of_equally_bad_ones_the_first_is_the_lonely_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials at chance accuracy are all the worst: the one that comes last is not better for that."""
    monkeypatch.setattr(ranking, "MAX_PEERS_BEYOND", 3)
    losses = np.array([[3.0, i, 9.0 - i, 5.0] for i in range(10)])
    losses[0] = [1.0, 9.0, 9.0, 1.0]
    losses = np.concatenate([losses, losses[[4]]])
    assert list(order_best(losses)).index(10) > list(order_best(losses)).index(4)
