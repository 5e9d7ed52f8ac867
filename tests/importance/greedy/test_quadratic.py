"""The search for channels on a quadratic of the loss: its increases, its order, its exchanges."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dirprune.importance.greedy.quadratic import Quadratic


def draw(n_channels: int, n_groups: int, seed: int) -> Quadratic:
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(3 * n_channels, n_channels)).astype(np.float32)
    groups = np.sort(np.arange(n_channels) % n_groups)
    return Quadratic(rng.normal(size=n_channels) / 10, factors, groups)


def increase_of(quadratic: Quadratic, removed: NDArray[np.bool_]) -> float:
    x = removed.astype(float)
    return float(-quadratic.gradient @ x + ((quadratic.factors @ x) ** 2).mean() / 2)


def test_costs_are_differences_of_increases() -> None:
    quadratic = draw(8, 2, 0)
    for channel in (3, 5, 0):
        before, cost = quadratic.increase(), quadratic.costs()[channel]
        quadratic.remove(channel)
        assert quadratic.increase() - before == pytest.approx(cost, abs=1e-5)
        assert quadratic.increase() == pytest.approx(increase_of(quadratic, quadratic.is_removed), abs=1e-5)
        assert quadratic.costs()[channel] == np.inf


def test_of_two_equal_channels_that_can_be_spared_one_stays() -> None:
    factors = np.array([[1.0, 1.0, 1.5]], dtype=np.float32)  # together 0 and 1 cost 2, with 2 gone more
    quadratic = Quadratic(
        np.zeros(3), factors * np.array([[1], [1]], dtype=np.float32), np.zeros(3, dtype=int)
    )
    quadratic.factors[1, 2] *= -1  # 2 moves the second row the other way
    quadratic.remove_cheapest(np.array([2]))
    assert quadratic.is_removed.tolist() == [True, False, True]


def test_each_group_loses_what_it_is_to_lose() -> None:
    quadratic = draw(12, 3, 1)
    quadratic.remove_cheapest(np.array([1, 0, 3]))
    quadratic.exchange(5)
    assert [int(quadratic.is_removed[quadratic.groups == g].sum()) for g in range(3)] == [1, 0, 3]


@pytest.mark.parametrize("seed", range(5))
def test_exchanges_come_near_the_best_of_all_sets(seed: int) -> None:
    quadratic = draw(10, 1, seed)
    quadratic.remove_cheapest(np.array([5]))
    first = quadratic.increase()
    quadratic.exchange(10)
    sets = (np.isin(np.arange(10), chosen) for chosen in itertools.combinations(range(10), 5))
    increases = sorted(increase_of(quadratic, removed) for removed in sets)
    assert quadratic.increase() <= first + 1e-6
    assert quadratic.increase() == pytest.approx(increase_of(quadratic, quadratic.is_removed), abs=1e-5)
    assert quadratic.increase() <= increases[5]
