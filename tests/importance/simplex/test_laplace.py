"""Laplace's covariances: the curvature by hand and by finite differences, and planted pairs."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext
from dirprune.importance.simplex import laplace
from dirprune.importance.simplex.laplace import (
    compute_curvature,
    compute_curvatures,
    compute_laplace_covariances,
)
from dirprune.importance.simplex.null import count_draws, draw_signs, make_rng
from dirprune.switches import switched
from dirprune.tracing import find_groups
from tests.importance.cases import evidence_case, linear_case, make_split
from tests.importance.simplex.planted import SUBSTITUTES, TOGETHER, planted_case


def test_curvature_of_a_regression_is_twice_the_gram_matrix_of_contributions() -> None:
    weights = torch.tensor([1.0, -2.0, 0.5])
    context = linear_case(weights.tolist())
    contributions = (context.calibration.inputs * weights).double()
    torch.testing.assert_close(
        compute_curvature(context)["0"], 2 * contributions.T @ contributions, rtol=1e-5, atol=1e-4
    )


@torch.no_grad()
def test_curvature_of_a_classifier_without_hidden_layers_is_its_hessian() -> None:
    context = evidence_case([0.4, 0.9, 0.3], n_examples=20)
    context.network.double()
    inputs, targets = context.calibration.inputs.double(), context.calibration.targets

    def loss(factors: torch.Tensor) -> torch.Tensor:
        with switched(context.network, context.grouping, {"0": factors}):
            return context.task.summed_loss(context.network(inputs), targets)

    with torch.enable_grad():
        exact = torch.autograd.functional.hessian(loss, torch.ones(3, dtype=torch.float64))
    context.network.float()
    torch.testing.assert_close(compute_curvature(context)["0"], exact, rtol=1e-4, atol=1e-5)


def test_planted_pairs_stand_out_in_every_part_of_the_images() -> None:
    found = compute_laplace_covariances(planted_case(), n_parts=3)["0"]
    above, below = found.pairs(2)
    assert above[0].channels == TOGETHER
    assert below[0].channels == SUBSTITUTES
    assert (above[0].n_positive, above[0].n_agreeing) == (3, 3)
    assert below[0].n_agreeing == 3
    assert found.covariances.sum(2).abs().max() < 1e-12
    assert found.excess().sum(2).abs().max() < 1e-12
    agreement = found.agreement()
    assert agreement.spearman is not None
    assert agreement.spearman > 0.5
    assert agreement.null is not None
    assert len(agreement.null.spearman) == 19
    assert agreement.spearman > max(agreement.null.spearman)
    assert agreement.n_confirmed > max(agreement.null.n_confirmed)


def test_without_interactions_seeds_agree_but_no_more_than_the_null() -> None:
    context = linear_case([0.2, 0.3, 0.4, 0.6, 0.8, 1.1, 1.5, 2.0], n_examples=3000)
    agreement = compute_laplace_covariances(context, n_parts=3)["0"].agreement()
    null = agreement.null
    assert agreement.spearman > 0.9  # by how much each channel counts on its own
    assert min(null.spearman) > 0.9
    assert agreement.spearman <= max(null.spearman)
    assert agreement.n_confirmed <= max(null.n_confirmed)


def test_draws_keep_the_diagonal_and_destroy_what_images_share() -> None:
    real, *draws = compute_curvatures(planted_case(), n_draws=2, seed=3)["0"]
    for draw in draws:
        torch.testing.assert_close(draw.diagonal(), real.diagonal())
        assert draw[TOGETHER].abs() < 0.1 * real[TOGETHER].abs()
        assert draw[SUBSTITUTES].abs() < 0.1 * real[SUBSTITUTES].abs()
    assert not torch.equal(*draws)


def test_a_draw_is_by_hand_the_curvature_with_signs_of_each_image() -> None:
    weights = torch.tensor([1.0, -2.0, 0.5])
    context = linear_case(weights.tolist())
    signs = draw_signs((1, 64, 3), make_rng(5))[0]
    contributions = signs * (context.calibration.inputs * weights).double()
    found = compute_curvatures(context, n_draws=1, seed=5)["0"][1]
    torch.testing.assert_close(found, 2 * contributions.T @ contributions, rtol=1e-5, atol=1e-4)
    assert not torch.equal(found, compute_curvatures(context, n_draws=1, seed=6)["0"][1])


def test_wide_networks_have_fewer_draws() -> None:
    assert count_draws([6, 16, 120, 84]) == 19
    assert count_draws([512] * 10) == 6
    assert count_draws([2048] * 4) == 1
    assert count_draws([4096] * 2) == 0


def test_one_channel_and_too_few_images() -> None:
    assert compute_laplace_covariances(linear_case([2.0]), 2)["0"].covariances.abs().max() == 0
    with pytest.raises(ImportanceError, match="parts must be between 1 and the 64 images, got 65"):
        compute_laplace_covariances(linear_case([1.0, 2.0]), 65)


def test_a_weak_prior_changes_nothing_that_the_loss_decides_and_is_refused_where_it_must_decide() -> None:
    context = linear_case([1.0, 2.0])
    usual, weak = (compute_laplace_covariances(context, 2, prior)["0"] for prior in (1e-6, 1e-200))
    torch.testing.assert_close(weak.covariances, usual.covariances, rtol=1e-6, atol=0)
    few_images = linear_case([1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 1.0, 2.0], n_examples=4)
    for undecided in (linear_case([1.0, 0.0, 0.0]), few_images):
        with pytest.raises(
            ImportanceError, match=r"rounding does not swallow, got 1e-200 .*; try a larger one"
        ):
            compute_laplace_covariances(undecided, 2, 1e-200)
    for prior in (0.0, -1.0, float("nan")):
        with pytest.raises(ImportanceError, match="prior_concentration must be a number above 0"):
            compute_laplace_covariances(linear_case([1.0, 2.0]), 2, prior)


def test_curvature_takes_no_more_images_at_once_than_fit_into_the_memory(monkeypatch) -> None:
    case = planted_case()
    expected = compute_curvatures(case, n_draws=2)["0"]
    sizes = []
    load = type(case).load

    def remember(self: ScoringContext, rows: torch.Tensor | slice) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = load(self, rows)
        sizes.append(len(inputs))
        return inputs, targets

    monkeypatch.setattr(type(case), "load", remember)
    monkeypatch.setattr(laplace, "N_BYTES", 1 << 16)
    small = compute_curvatures(dataclasses.replace(case, memory_mb=1), n_draws=2)["0"]
    assert max(sizes) * case.grouping.groups[0].n_channels <= 16
    torch.testing.assert_close(small, expected)


def test_progress_is_told_of_images_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laplace, "MAX_BATCH", 20)
    told: list[tuple[str, int, int]] = []
    context = dataclasses.replace(linear_case([1.0, 2.0]), progress=lambda *state: told.append(state))
    compute_laplace_covariances(context, n_parts=2)
    of_part = [("images of a part", 20, 32), ("images of a part", 32, 32)]
    assert told == [*of_part, ("parts of the images", 1, 2), *of_part, ("parts of the images", 2, 2)]


class _Squeezed(nn.Module):
    """A regression of one number, whose batch norm takes the statistics of the images at hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(4, 5), nn.BatchNorm1d(5, track_running_stats=False)
        self.last = nn.Linear(5, 1)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(inputs)))).squeeze()


def test_a_network_of_one_number_whose_norm_needs_several_images_has_covariances() -> None:
    torch.manual_seed(0)
    network, inputs = _Squeezed().eval(), torch.randn(40, 4)
    grouping = find_groups(network, inputs[:2])
    with torch.no_grad():
        context = dataclasses.replace(
            linear_case([1.0] * 4),
            network=network,
            grouping=grouping,
            calibration=make_split(inputs, network(inputs) + torch.randn(40)),
        )
    found = compute_laplace_covariances(context, n_parts=2)["first"]
    assert found.covariances.shape == (2, 5, 5)
    assert found.covariances.isfinite().all()
