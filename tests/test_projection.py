"""Targets become architectures: never above, near below, growing with the target, in allowed widths."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import ConfigurationError
from dirprune.groups import Grouping
from dirprune.networks import create_network
from dirprune.projection import Projection
from dirprune.tracing import find_groups

SHAPES = {"lenet5": (2, 1, 28, 28), "resnet20": (2, 3, 32, 32)}
OFFSET = st.floats(-1.5, 1.5)


@cache
def load(name: str) -> tuple[Grouping, CostModel]:
    network, example = create_network(name).eval(), torch.zeros(*SHAPES[name])
    grouping = find_groups(network, example)
    return grouping, CostModel(network, grouping, example)


def draw_target(projection: Projection, share: float) -> float:
    return projection.lowest_cost + share * (projection.highest_cost - projection.lowest_cost)


def find_cheapest_step(projection: Projection, kept: Architecture) -> float:
    """Return what the cheapest step of any group adds, written without the code under test."""
    base = projection.costs.costs(kept).as_dict()[projection.metric]
    added = []
    for name, widths in zip(projection.names, projection.widths, strict=True):
        wider = [int(width) for width in widths if width > kept[name]]
        if wider:
            costs = projection.costs.costs({**kept, name: wider[0]}).as_dict()
            added.append(costs[projection.metric] - base)
    return min(added, default=0)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from(["macs", "parameters"]),
    st.sampled_from([1, 4, 8]),
    st.floats(0, 1),
    st.data(),
)
def test_result_is_below_the_target_by_less_than_one_cheapest_step(
    name, metric, multiple, share, data
) -> None:
    grouping, costs = load(name)
    projection = Projection(costs, metric, multiple=multiple)
    offsets = {group: data.draw(OFFSET) for group in grouping.names}
    target = draw_target(projection, share)
    kept = projection.by_offsets(target, offsets)
    cost = costs.costs(kept).as_dict()[metric]
    assert cost <= target
    assert target - cost < max(find_cheapest_step(projection, kept), 1)
    for group, n_kept in kept.items():
        assert n_kept % multiple == 0 or n_kept in (1, grouping.n_channels[group])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SHAPES)), st.floats(0, 1), st.floats(0, 1), st.booleans(), st.data())
def test_cost_never_falls_when_the_target_grows(name, first, second, is_ranked, data) -> None:
    grouping, costs = load(name)
    projection = Projection(costs)
    offsets = {group: data.draw(OFFSET) for group in grouping.names}
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    scores = {group: rng.random(n) for group, n in grouping.n_channels.items()}

    def project(share: float) -> int:
        target = draw_target(projection, share)
        if is_ranked:
            return costs.costs(projection.by_scores(target, scores, offsets)).macs
        return costs.costs(projection.by_offsets(target, offsets)).macs

    low, high = sorted((first, second))
    assert project(low) <= project(high)


def test_ends_of_the_range_are_the_smallest_and_the_whole_network() -> None:
    grouping, costs = load("lenet5")
    projection = Projection(costs, least={"conv2": 5})
    assert str(projection.by_offsets(projection.lowest_cost, {})) == "1-5-1-1"
    assert projection.by_offsets(projection.highest_cost, {}) == Architecture.full(grouping)
    assert projection.by_offsets(10 * projection.highest_cost, {}) == Architecture.full(grouping)
    with pytest.raises(ConfigurationError, match=r"macs can be from .* to 498,750 here, got a target of 10"):
        projection.by_offsets(10, {})


def test_without_offsets_all_groups_keep_about_the_same_share() -> None:
    grouping, costs = load("resnet20")
    kept = Projection(costs).by_offsets(0.5 * costs.costs(grouping.n_channels).macs, {})
    ratios = [kept[name] / n for name, n in grouping.n_channels.items()]
    assert max(ratios) - min(ratios) < 0.13  # a channel of 16 and the filling


def test_an_offset_keeps_more_of_its_group_and_less_of_the_others() -> None:
    projection = Projection(load("lenet5")[1])
    even, tilted = (projection.by_offsets(200_000, offsets) for offsets in ({}, {"conv1": 1.0}))
    assert tilted["conv1"] > even["conv1"]
    assert tilted["conv2"] < even["conv2"]


def test_scores_shape_the_architecture_whatever_their_unit() -> None:
    grouping, costs = load("lenet5")
    projection = Projection(costs)
    scores = {name: np.ones(n) for name, n in grouping.n_channels.items()}
    scores["conv2"] = np.array([10.0] * 6 + [0.1] * 14)
    kept = projection.by_scores(150_000, scores, {})
    scores["conv2"] = 1000 * scores["conv2"]
    assert projection.by_scores(150_000, scores, {}) == kept
    assert kept["conv2"] == 6
    assert projection.by_scores(150_000, scores, {"conv2": 5.0})["conv2"] > 6


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 0.9), st.data())
def test_offsets_of_an_architecture_lead_back_to_its_neighbourhood(share, data) -> None:
    grouping, costs = load("resnet20")
    projection = Projection(costs)
    offsets = {group: data.draw(st.floats(-0.7, 0.7)) for group in grouping.names}
    kept = projection.by_offsets(draw_target(projection, share), offsets)
    found = projection.by_offsets(costs.costs(kept).macs, projection.offsets_of(kept))
    for name, n in grouping.n_channels.items():
        assert abs(found[name] - kept[name]) <= max(2, 0.15 * n)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "mac"}, "did you mean 'macs'"),
        ({"multiple": 0}, "multiple must be at least 1, got 0"),
        ({"multiple": {"conv1": 0}}, "multiple must be at least 1, got 0"),
        ({"least": {"conv1": 11}}, r"least width of conv1 must be in 1\.\.10, got 11"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Projection(load("lenet5")[1], **arguments)


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected 10 finite scores of conv1"):
        Projection(load("lenet5")[1]).by_scores(200_000, {"conv1": [1.0]}, {})
