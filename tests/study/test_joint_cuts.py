"""Candidates are chosen by what they lose when they are cut as a whole, not by what sums promise."""

from __future__ import annotations

import math

import pytest

from dirprune.allocation import Allocation, choose_spread
from dirprune.architecture import Architecture
from dirprune.study.joint_cuts import N_TRIED, JointCuts

N = 16


def make_candidates(loss_of_one: float = 0.01) -> list[Allocation]:
    """Return a group of 16 channels at every width, and as many of another that stays whole."""
    return [
        Allocation(Architecture({"a": width, "b": N}), loss_of_one * (N - width), float(width))
        for width in range(1, N)
    ]


def cost_of(architecture) -> float:
    return float(architecture["a"])


def choose(measure, find_alternatives=lambda architecture: [], n=4, least=0.5, told=None):
    def tell(*report):
        if told is not None:
            told.append(report)

    together = JointCuts(measure, find_alternatives, cost_of, tell)
    return together.choose(make_candidates(), n, float(N), least)


def test_what_is_lost_together_decides_and_not_the_sum():
    measured = []

    def measure(architecture):
        measured.append(architecture["a"])
        return 0.1 * (N - architecture["a"])  # ten times what sums say

    by_sums = choose_spread(make_candidates(), 4, float(N), 0.5)
    assert min(one.cost for one in by_sums) == 1
    told: list[tuple[str, int, int]] = []
    found = choose(measure, told=told)
    assert len(found) == 4
    assert all(math.exp(-one.loss) > 0.5 for one in found)
    assert [one.loss for one in found] == pytest.approx([0.1 * (N - one.cost) for one in found])
    assert len(measured) == len(set(measured)) < N - 1  # nothing twice, and not all
    done = [n_done for _, n_done, _ in told]
    assert done == sorted(done)  # it never goes back
    assert told[0] == ("joint cuts", 0, 4)
    assert told[-1] == ("joint cuts", len(measured), len(measured))


def test_what_lies_beside_a_candidate_takes_its_place_where_it_loses_less():
    def find_alternatives(architecture):
        return [Architecture({"a": architecture["a"], "b": width}) for width in (12, 8, 4)]

    tried = []

    def measure(architecture):
        tried.append(architecture["b"])
        return 0.05 * (N - architecture["a"]) + 0.01 * abs(architecture["b"] - 12)

    found = choose(measure, find_alternatives)
    assert found
    assert all(one.architecture["b"] == 12 for one in found)
    assert 8 in tried
    assert 4 not in tried  # 8 was worse already


def test_nothing_is_looked_at_beside_candidates_where_it_was_never_better():
    tried = []

    def measure(architecture):
        tried.append(architecture["b"])
        return 0.01 * (N - architecture["a"]) + (architecture["b"] < N)

    choose(measure, lambda architecture: [Architecture({"a": architecture["a"], "b": 8})], n=8)
    assert tried.count(8) == N_TRIED < tried.count(N)


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_what_breaks_when_it_is_cut_is_not_chosen(broken):
    found = choose(lambda architecture: broken if architecture["a"] < 9 else 0.01 * (N - architecture["a"]))
    assert found
    assert min(one.cost for one in found) >= 9


def test_of_no_candidates_none_are_chosen():
    together = JointCuts(lambda _: 0.0, lambda _: [], cost_of, lambda *_: None)
    assert together.choose([], 3, float(N), 0.5) == []


def test_what_loses_less_and_costs_more_does_not_take_the_place_of_what_was_looked_at():
    def find_alternatives(architecture):
        return [Architecture({"a": architecture["a"], "b": 8})]  # which costs ten times as much

    def cost(architecture):
        return architecture["a"] * (10.0 if architecture["b"] == 8 else 1.0)

    def measure(architecture):
        return 0.02 * (N - architecture["a"]) + 0.001 * (architecture["b"] != 8)

    together = JointCuts(measure, find_alternatives, cost, lambda *_: None)
    found = together.choose(make_candidates(), 4, float(N), 0.5)
    assert any(one.architecture["b"] == N for one in found)
    assert all(one.cost == cost(one.architecture) for one in found)


def test_what_gains_when_it_is_cut_is_taken_to_lose_nothing():
    found = choose(lambda architecture: -1e4)
    assert found
    assert all(one.loss == 0 for one in found)
