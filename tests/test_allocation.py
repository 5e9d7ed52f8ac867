"""Allocations against brute force, on LeNet-5, on random chains and where groups meet out of order."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dirprune.allocation import RELAXATION, Allocation, Curve, allocate, choose_spread
from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import ArchitectureError
from dirprune.networks import create_network
from dirprune.pareto import front_mask, hypervolume
from dirprune.tracing import find_groups
from tests.networks_for_tests import build_case


def make_costs(name: str) -> CostModel:
    network, batch = build_case(name)
    return CostModel(network.eval(), find_groups(network, batch), batch)


def brute_force(costs: CostModel, metric: str, curves: dict[str, Curve]) -> list[tuple[float, float]]:
    """Return (cost, loss) of the best of all architectures, sorted."""
    points = []
    for places in itertools.product(*(range(len(curves[name].widths)) for name in costs.n_channels)):
        chosen = list(zip(costs.n_channels, places, strict=True))
        architecture = {name: curves[name].widths[place] for name, place in chosen}
        loss = sum(curves[name].losses[place] for name, place in chosen)
        points.append((costs.costs(architecture).as_dict()[metric], loss))
    return sorted({point for point, on in zip(points, front_mask(np.array(points)), strict=True) if on})


def draw_curves(costs: CostModel, n_widths: int, seed: int) -> dict[str, Curve]:
    """Return curves that fall from some loss to none."""
    rng = np.random.default_rng(seed)
    curves = {}
    for name, n_channels in costs.n_channels.items():
        widths = sorted({*rng.integers(1, n_channels, size=n_widths - 1, endpoint=True).tolist(), n_channels})
        losses = np.sort(rng.exponential(rng.uniform(0.1, 3.0), size=len(widths)))[::-1]
        curves[name] = Curve(tuple(widths), tuple((losses - losses[-1]).tolist()))
    return curves


@pytest.mark.parametrize("metric", ["macs", "parameters"])
def test_every_budget_of_lenet_5_gets_what_brute_force_finds(metric):
    network, example = create_network("lenet5").eval(), torch.zeros(2, 1, 28, 28)
    costs = CostModel(network, find_groups(network, example), example)
    curves = draw_curves(costs, 6, seed=0)
    found = [(a.cost, a.loss) for a in allocate(costs, metric, curves, max_labels=10_000)]
    expected = brute_force(costs, metric, curves)
    assert np.allclose(found, expected)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n_widths=st.integers(2, 5))
def test_chains_are_solved_exactly(seed, n_widths):
    costs = make_costs("lenet")
    curves = draw_curves(costs, n_widths, seed)
    found = [(a.cost, a.loss) for a in allocate(costs, "macs", curves, max_labels=10_000)]
    assert np.allclose(found, brute_force(costs, "macs", curves))


def test_latency_is_allocated_like_any_cost():
    costs = make_costs("lenet")
    one = costs.macs_by_pair(dict.fromkeys(costs.n_channels, 1))
    costs = costs.with_latency(0.5, [1e-5 * (place + 1) for place in range(len(one))])
    curves = draw_curves(costs, 4, seed=1)
    found = [(a.cost, a.loss) for a in allocate(costs, "latency_ms", curves, max_labels=10_000)]
    assert np.allclose(found, brute_force(costs, "latency_ms", curves))


def test_few_labels_still_give_nearly_the_best_trades():
    network, example = create_network("lenet5").eval(), torch.zeros(2, 1, 28, 28)
    costs = CostModel(network, find_groups(network, example), example)
    curves = draw_curves(costs, 6, seed=2)
    few = allocate(costs, "macs", curves, max_labels=24)
    assert measure(few, costs) >= 0.9 * measure(allocate(costs, "macs", curves, 10_000), costs)


def measure(allocations: list[Allocation], costs: CostModel) -> float:
    """Return the hypervolume of promises and costs."""
    whole = costs.costs(costs.n_channels).macs
    return hypervolume([(-math.exp(-a.loss), a.cost / whole) for a in allocations], [0.0, 1.0])


@pytest.mark.parametrize("name", ["residual", "concatenating", "depthwise"])
def test_groups_that_meet_out_of_order_are_allocated_nearly_as_well_as_by_brute_force(name):
    costs = make_costs(name)
    one = len(costs.n_channels)
    assert any(j != one and j - i > 1 for _, i, j in costs.terms("macs"))
    assert compare_with_brute_force(costs, draw_curves(costs, 4, seed=3)) >= 0.98


@pytest.mark.parametrize("name", ["residual", "concatenating", "depthwise"])
def test_a_group_of_one_width_leaves_the_trades_of_the_others_as_good(name):
    costs = make_costs(name)
    for group, n_channels in costs.n_channels.items():
        curves = {**draw_curves(costs, 4, seed=3), group: Curve((n_channels,), (0.0,))}
        assert compare_with_brute_force(costs, curves) >= 0.98


def test_a_network_without_any_choice_has_one_allocation():
    costs = make_costs("residual")
    curves = {name: Curve((n_channels,), (0.0,)) for name, n_channels in costs.n_channels.items()}
    (allocation,) = allocate(costs, "macs", curves)
    assert allocation.architecture == costs.n_channels


def compare_with_brute_force(costs: CostModel, curves: dict[str, Curve]) -> float:
    """Return the hypervolume of what is allocated as a share of the largest one."""
    whole = costs.costs(costs.n_channels).macs
    best = [(-math.exp(-loss), cost / whole) for cost, loss in brute_force(costs, "macs", curves)]
    return measure(allocate(costs, "macs", curves), costs) / hypervolume(best, [0.0, 1.0])


def test_the_chosen_ones_promise_more_than_as_many_others():
    costs = make_costs("lenet")
    allocations = allocate(costs, "macs", draw_curves(costs, 5, seed=4))
    whole = costs.costs(costs.n_channels).macs
    chosen = choose_spread(allocations, 4, whole)
    assert chosen == choose_spread(allocations, 8, whole)[:4]
    rng = np.random.default_rng(0)
    for _ in range(50):
        others = [allocations[place] for place in rng.permutation(len(allocations))[:4]]
        assert measure(chosen, costs) >= measure(others, costs) - 1e-12


def test_the_first_ones_promise_enough_where_a_least_promise_is_given():
    costs = make_costs("lenet")
    allocations = allocate(costs, "macs", draw_curves(costs, 5, seed=4))
    whole = costs.costs(costs.n_channels).macs
    promises = sorted(math.exp(-allocation.loss) for allocation in allocations)
    least = promises[len(promises) // 2]
    assert any(math.exp(-a.loss) < least for a in choose_spread(allocations, 4, whole))
    assert all(math.exp(-a.loss) > least for a in choose_spread(allocations, 4, whole, least))


@pytest.mark.parametrize("least", [0.9999, 1.0])
def test_where_few_or_none_promise_enough_those_nearest_to_it_fill_up_and_not_the_cheapest(least):
    costs = make_costs("lenet")
    allocations = allocate(costs, "macs", draw_curves(costs, 5, seed=4))
    whole = costs.costs(costs.n_channels).macs
    chosen = choose_spread(allocations, 6, whole, least)
    assert len(chosen) == 6
    assert all(allocation.cost < whole for allocation in chosen)
    nearest = sorted((math.exp(-a.loss) for a in allocations if a.cost < whole), reverse=True)
    assert sum(promise > least for promise in nearest) < 6, "no floor that is tight"
    assert min(math.exp(-a.loss) for a in chosen) >= nearest[5] - RELAXATION


def test_what_is_chosen_where_nothing_promises_enough_is_spread_over_costs():
    losses = [0.0, *(0.0001 * step for step in range(1, 40))]  # 40 steps of 2.5% of the cost each
    allocations = [Allocation(Architecture({"a": 40 - i}), loss, 40.0 - i) for i, loss in enumerate(losses)]
    chosen = choose_spread(allocations[::-1], 4, whole=40.0, least=1.0)
    assert min(allocation.cost for allocation in chosen) < 20 < max(allocation.cost for allocation in chosen)


def test_the_whole_network_is_never_chosen():
    allocations = [
        Allocation(Architecture({"a": 1}), 0.1, 5.0),
        Allocation(Architecture({"a": 2}), 0.0, 10.0),
    ]
    assert choose_spread(allocations, 2, 10.0) == allocations[:1]


def test_no_more_are_chosen_than_there_are_and_none_when_none_is_asked_for():
    allocation = Allocation(Architecture({"a": 1}), 0.1, 5.0)
    assert choose_spread([allocation], 3, 10.0) == [allocation]
    assert choose_spread([allocation], 0, 10.0) == []


def test_a_curve_between_its_widths_is_straight_and_never_rises():
    curve = Curve((2, 4, 8), (1.0, 1.2, 0.0)).at((2, 3, 6, 8))
    assert curve.losses == pytest.approx((1.2, 1.2, 0.6, 0.0))


@pytest.mark.parametrize(
    ("widths", "losses"), [((1, 2), (0.1,)), ((2, 1), (0.1, 0.0)), ((), ()), ((1, 2), (math.nan, 0.0))]
)
def test_curves_that_make_no_sense_are_refused(widths, losses):
    with pytest.raises(ArchitectureError, match="expected"):
        Curve(widths, losses)


def test_a_group_without_a_curve_is_named():
    costs = make_costs("lenet")
    first, *others = costs.n_channels
    curves = {name: Curve((costs.n_channels[name],), (0.0,)) for name in others}
    with pytest.raises(ArchitectureError, match=f"got none for {first}"):
        allocate(costs, "macs", curves)


def test_what_another_is_better_than_in_both_is_not_chosen() -> None:
    """A path of greedy elimination comes by such ones; losses at equal cost rise and fall."""
    found = [
        Allocation(Architecture({"a": width}), loss, float(width))
        for width, loss in ((1, 0.5), (2, 0.1), (3, 0.2), (4, 0.15), (5, 0.05))
    ]
    chosen = choose_spread(found, 5, whole=10.0)
    assert sorted(allocation.cost for allocation in chosen) == [1.0, 2.0, 5.0]


def test_of_nothing_nothing_is_chosen() -> None:
    assert choose_spread([], 3, whole=10.0) == []
