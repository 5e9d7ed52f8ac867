"""Random scores: spread out, and bound to the channel."""

from __future__ import annotations

import torch

from tests.importance.cases import linear_case, score


def test_channels_with_the_same_weights_are_tied() -> None:
    scores = score("random", linear_case([1.0, 2.0, 3.0]))[
        "0"
    ]  # rows of the identity: the same weights, reordered
    assert len(scores.unique()) == 1


def test_scores_are_spread_over_the_unit_interval() -> None:
    context = linear_case([1.0] * 400)
    context.network[0].weight.data = torch.randn(400, 400, generator=torch.Generator().manual_seed(0))  # type: ignore[index]
    scores = score("random", context)["0"]
    assert scores.min() >= 0
    assert scores.max() < 1
    assert abs(scores.mean() - 0.5) < 0.05
    assert abs(scores.std() - 12**-0.5) < 0.03
    assert len(scores.unique()) == 400
