"""Batch-norm scales against gammas written down by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dirprune.importance import ScoringContext
from tests.importance.cases import make_context, score
from tests.networks_for_tests import Residual


def set_scales_(context: ScoringContext, **gammas: list[float]) -> None:
    for name, gamma in gammas.items():
        context.network.get_submodule(name).weight.data = torch.tensor(gamma)


def l2_norms(layer: nn.Module) -> Tensor:
    return layer.weight.detach().double().flatten(1).square().sum(1).sqrt()


def test_score_is_the_size_of_gamma_also_behind_pooling_and_activation() -> None:
    context = make_context()
    set_scales_(context, bn1=[0.5, -2.0, 0.25, 1.0], bn2=[1.0, 2.0, -3.0, 4.0, 5.0, -6.0])
    scores = score("bn-scale", context)
    assert scores["conv1"].tolist() == [0.5, 2.0, 0.25, 1.0]
    assert scores["conv2"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_group_without_batch_norm_is_scored_by_the_norm_of_its_weights() -> None:
    context = make_context()
    torch.testing.assert_close(score("bn-scale", context)["linear1"], l2_norms(context.network.linear1))


def test_batch_norm_without_scales_counts_as_none() -> None:
    context = make_context()
    context.network.bn1 = nn.BatchNorm2d(4, affine=False).eval()
    torch.testing.assert_close(score("bn-scale", context)["conv1"], l2_norms(context.network.conv1))


def test_scales_of_coupled_layers_are_added() -> None:
    context = make_context(Residual)
    set_scales_(context, bn=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], bn_a2=[-6.0, 0.5, -4.0, 0.0, 2.0, 1.0])
    assert score("bn-scale", context)["stem"].tolist() == [7.0, 2.5, 7.0, 4.0, 7.0, 7.0]


def test_one_batch_norm_is_enough_where_a_shortcut_has_none() -> None:
    context = make_context(Residual)
    assert {slot.module for slot in context.grouping["conv_b1"].producers} == {
        "conv_b1",
        "bn_b1",
        "shortcut_b",
    }
    set_scales_(context, bn_b1=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -7.0])
    assert score("bn-scale", context)["conv_b1"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
