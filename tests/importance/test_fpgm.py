"""Geometric-median scores against distances worked out by hand."""

from __future__ import annotations

import pytest
import torch

from dirprune.importance import keep_best
from tests.importance.cases import linear_case, make_context, score
from tests.networks_for_tests import Residual


def test_scores_are_sums_of_distances() -> None:
    context = linear_case([1, 1, 1])
    context.network[0].weight.data = torch.tensor([[0.0, 0.0, 1.0], [3.0, 4.0, 1.0], [3.0, 0.0, 1.0]])
    scores = score("fpgm", context)["0"]  # distances: 5 between 0 and 1, 3 between 0 and 2, 4 between 1 and 2
    torch.testing.assert_close(scores, torch.tensor([8.0, 9.0, 7.0], dtype=torch.float64))


def test_large_but_replaceable_channels_go_first() -> None:
    context = linear_case([1, 1, 1, 1])
    context.network[0].weight.data = torch.diag(torch.tensor([1.0, 1.0, 10.0, 10.0]))
    context.network[0].weight.data[3] = context.network[0].weight.data[2]
    scores = score("fpgm", context)
    assert keep_best(scores, {"0": 3})["0"] == [0, 1, 2]
    assert float(scores["0"][2]) == pytest.approx(2 * 101**0.5)


def test_weights_of_coupled_layers_are_put_side_by_side() -> None:
    context = make_context(Residual)
    network = context.network
    side_by_side = torch.cat([network.stem.weight.flatten(1), network.conv_a2.weight.flatten(1)], dim=1)
    points = side_by_side.detach().double()
    expected = (points.unsqueeze(1) - points).square().sum(2).sqrt().sum(1)
    torch.testing.assert_close(score("fpgm", context)["stem"], expected)


def test_only_channel_of_a_group_has_no_distance() -> None:
    assert score("fpgm", linear_case([1]))["0"].tolist() == [0.0]
