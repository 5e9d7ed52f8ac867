"""Magnitude against norms worked out by hand."""

from __future__ import annotations

import pytest
import torch

from tests.importance.cases import linear_case, make_context, score
from tests.networks_for_tests import Residual


def test_norms_are_those_of_each_channels_own_weights() -> None:
    context = linear_case([1, 1])
    context.network[0].weight.data = torch.tensor([[3.0, -4.0], [1.0, 0.0]])  # type: ignore[index]
    assert score("magnitude", context)["0"].tolist() == [7.0, 1.0]
    assert score("magnitude", context, {"norm": "l2"})["0"].tolist() == [5.0, 1.0]


@pytest.mark.parametrize(("norm", "power"), [("l1", 1), ("l2", 2)])
def test_coupled_layers_are_added_up(norm: str, power: int) -> None:
    context = make_context(Residual)
    assert {slot.module for slot in context.grouping["stem"].producers} == {"stem", "bn", "conv_a2", "bn_a2"}
    network = context.network
    sums = [
        layer.weight.detach().double().abs().pow(power).sum((1, 2, 3))
        for layer in (network.stem, network.conv_a2)
    ]
    torch.testing.assert_close(score("magnitude", context, {"norm": norm})["stem"], sum(sums) ** (1 / power))
