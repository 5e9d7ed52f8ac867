"""Covariances of switches: the matched Dirichlet, planted pairs, what seeds agree about, and refusals."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributions import Dirichlet

from dirprune.errors import ImportanceError
from dirprune.importance import ScoreCache, ScoringContext, create
from dirprune.importance.simplex import DirichletPosterior, SimplexFamily, SimplexOptions, compute_loss
from dirprune.importance.simplex.covariances import (
    GroupCovariances,
    Null,
    compute_covariances,
    match_dirichlet,
)
from dirprune.importance.simplex.laplace import compute_laplace_covariances
from dirprune.importance.simplex.null import make_rng
from dirprune.importance.simplex.scorers import SimplexSwitches
from tests.importance.cases import linear_case, make_context
from tests.importance.simplex.planted import SUBSTITUTES, TOGETHER, planted_case
from tests.networks_for_tests import SmallLeNet

OPTIONS: dict[str, dict[str, Any]] = {
    "dirichlet": {},
    "generalized-dirichlet": {"steps": 300},
    "logistic-normal": {"steps": 300, "lr": 0.05, "rank": 4},
}
RICH = ["generalized-dirichlet", pytest.param("logistic-normal", marks=pytest.mark.slow)]


@functools.cache
def planted(name: str, seeds: tuple[int, ...] = (0, 1, 2)) -> GroupCovariances:
    return compute_covariances(create(name, OPTIONS[name]), planted_case(), seeds)["0"]


@pytest.mark.parametrize("name", RICH)
def test_channels_that_only_help_together_stand_out_above_the_dirichlet(name: str) -> None:
    strongest = planted(name).pairs(3)[0][0]
    assert strongest.channels == TOGETHER
    assert strongest.excess > 0.1
    assert strongest.n_agreeing == 3
    assert strongest.n_positive >= 2


@pytest.mark.slow
def test_logistic_normal_gives_channels_that_only_help_together_a_positive_covariance_every_time() -> None:
    found = planted("logistic-normal")
    assert (found.covariances[:, 0, 1] > 0).all()
    assert (found.relative(found.covariances)[:, 0, 1] > 0.2).all()
    assert found.agreement().n_confirmed >= 1


@pytest.mark.parametrize("name", RICH)
def test_duplicates_are_more_negative_than_the_dirichlet_has_them(name: str) -> None:
    strongest = planted(name).pairs(3)[1][0]
    assert strongest.channels == SUBSTITUTES
    assert strongest.excess < -0.3
    assert strongest.correlation < -0.4
    assert (strongest.n_agreeing, strongest.n_positive) == (3, 0)


def test_dirichlet_cannot_tell_planted_pairs_from_others() -> None:
    found = planted("dirichlet")
    off_diagonal = ~torch.eye(8, dtype=torch.bool)
    assert (found.covariances[:, off_diagonal] < 0).all()
    assert found.relative(found.excess()).abs().max() == 0
    assert found.pairs(3) == ([], [])
    assert found.agreement().spearman is None
    assert found.agreement().n_positive == (0, 0, 0)


@pytest.mark.parametrize("name", ["dirichlet", *RICH])
def test_every_row_of_covariances_and_excesses_sums_to_zero(name: str) -> None:
    found = planted(name)
    for matrices in (found.covariances, found.excess()):
        assert matrices.sum(2).abs().max() < 1e-12
    assert found.excess().diagonal(dim1=1, dim2=2).sum(1).abs().max() < 1e-12


def test_matched_dirichlet_is_the_dirichlet_itself() -> None:
    concentration = torch.tensor([0.6, 2.0, 3.5, 1.2], dtype=torch.float64)
    mean = concentration / concentration.sum()
    own = (mean.diag() - mean.outer(mean)) / (concentration.sum() + 1)
    torch.testing.assert_close(own.diagonal(), Dirichlet(concentration).variance)
    torch.testing.assert_close(match_dirichlet(mean, own), own)
    torch.testing.assert_close(match_dirichlet(mean, 0.3 * own), 0.3 * own)
    assert match_dirichlet(torch.ones(1).double(), torch.zeros(1, 1).double()).tolist() == [[0.0]]


def test_agreement_counts_what_every_seed_says() -> None:
    def covariance(*pairs: tuple[int, int, float]) -> torch.Tensor:
        matrix = torch.eye(3, dtype=torch.float64)
        for i, j, value in pairs:
            matrix[i, j] = matrix[j, i] = value
        return matrix

    matrices = [covariance((0, 1, 0.5), (0, 2, 0.1), (1, 2, -0.6)), covariance((0, 1, 0.4), (1, 2, -0.3))]
    means = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    agreement = GroupCovariances(means, torch.stack(matrices)).agreement()
    assert agreement.spearman == pytest.approx(1.0)
    assert agreement.n_pairs == 3
    assert agreement.n_positive == (2, 1)
    assert agreement.n_confirmed == 1
    assert agreement.null is None
    reverse = torch.stack([matrices[0], covariance((0, 1, -0.5), (0, 2, -0.1), (1, 2, 0.6))])
    assert GroupCovariances(means, reverse).agreement().spearman == pytest.approx(-1.0)


def test_pairs_that_are_equal_share_their_rank() -> None:
    def with_a_pair(i: int, j: int) -> torch.Tensor:
        covariance = torch.eye(15, dtype=torch.float64) - 1 / 15
        covariance[[i, j], [j, i]] += 0.1
        return covariance

    means = torch.full((2, 15), 1 / 15, dtype=torch.float64)
    covariances = torch.stack([with_a_pair(0, 4), with_a_pair(7, 9)])
    # Of 105 pairs each has another one that stands out: by hand -1 / 104.
    assert GroupCovariances(means, covariances).agreement().spearman == pytest.approx(-1 / 104)


def test_null_is_judged_as_the_real_figures_are() -> None:
    one, other = torch.eye(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
    one[0, 1] = one[1, 0] = other[1, 2] = other[2, 1] = 0.5
    means = torch.full((2, 3), 1 / 3, dtype=torch.float64)
    draws = tuple(GroupCovariances(means, torch.stack(seeds)) for seeds in ([one, one], [one, other]))
    agreement = GroupCovariances(means, torch.stack([other, one]), draws).agreement()
    assert agreement.null == Null((pytest.approx(1.0), pytest.approx(-0.5)), (1, 0))
    assert (agreement.spearman, agreement.n_confirmed) == (pytest.approx(-0.5), 0)


def test_samples_are_mirrored_at_their_mean_where_the_sign_is_negative() -> None:
    context = linear_case([1.0, -2.0, 0.5], n_examples=4)
    posterior = DirichletPosterior({"0": 3}, 3.0)
    signs = torch.tensor([[1, 1, 1], [-1, 1, -1], [-1, -1, -1], [1, -1, 1]], dtype=torch.int8)
    positions, options = torch.tensor([3, 1, 2, 0]), SimplexOptions(batch_size=4, n_samples=4)
    loss = compute_loss(posterior, context, positions, options, make_rng(0), signs=signs)
    samples = posterior.sample(4, make_rng(0))
    mirrored = 2 * samples.mean(0) - samples
    factors = 3 * torch.where(signs[positions] > 0, samples, mirrored)
    inputs = context.calibration.inputs[positions].double()
    by_hand = (inputs * (factors - 1) @ torch.tensor([1.0, -2.0, 0.5]).double()).square().mean()
    torch.testing.assert_close(loss, by_hand + posterior.kl() / 4, rtol=1e-5, atol=1e-8)


@pytest.mark.slow
def test_pairs_stand_out_from_fits_without_interactions() -> None:
    method = create("generalized-dirichlet", {"steps": 100})
    found = compute_covariances(method, planted_case(), [0, 1], n_draws=3)["0"]
    together, substitutes = ([_excess(draw, pair) for draw in found.null] for pair in (TOGETHER, SUBSTITUTES))
    assert _excess(found, TOGETHER) > max(together) + 0.05
    assert _excess(found, SUBSTITUTES) < min(substitutes) - 0.2
    assert not torch.equal(found.null[0].covariances, found.null[1].covariances)


def _excess(found: GroupCovariances, pair: tuple[int, int]) -> float:
    return float(found.relative(found.excess()).mean(0)[pair])


def test_seeds_of_one_draw_share_its_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    fit, seen = SimplexSwitches.fit, []

    def note(method: SimplexSwitches, context: ScoringContext, signs: torch.Tensor | None) -> SimplexFamily:
        seen.append(signs)
        return fit(method, context, signs)

    monkeypatch.setattr(SimplexSwitches, "fit", note)
    method = create("dirichlet", {"steps": 1})
    compute_covariances(method, linear_case([1.0, 2.0]), [0, 1], n_draws=2)
    real, first, second = seen[:2], seen[2:4], seen[4:]
    assert real == [None, None]
    assert first[0].shape == (64, 2)
    assert sorted(set(first[0].flatten().tolist())) == [-1, 1]
    assert torch.equal(*first)
    assert torch.equal(*second)
    assert not torch.equal(first[0], second[0])


def test_fits_without_interactions_are_found_again(tmp_path: Path) -> None:
    def compute() -> GroupCovariances:
        method, cache = create("dirichlet", {"steps": 1}), ScoreCache(tmp_path)
        return compute_covariances(method, linear_case([1.0, 2.0, 3.0]), [0, 1], cache, n_draws=2)["0"]

    first, n_files = compute(), len(list(tmp_path.glob("*.safetensors")))
    again = compute()
    assert n_files == len(list(tmp_path.glob("*.safetensors"))) == 6
    for one, other in zip([first, *first.null], [again, *again.null], strict=True):
        assert torch.equal(one.covariances, other.covariances)


def test_weights_that_are_too_large_stop_a_fit_at_its_first_step_and_nothing_is_kept(tmp_path: Path) -> None:
    context = make_context(SmallLeNet)
    context.network.conv1.weight.data.fill_(3e38)  # type: ignore[operator,union-attr]
    cache = ScoreCache(tmp_path)
    with pytest.raises(ImportanceError, match=r"^expected finite gradients in step 1 of the posterior, got"):
        compute_covariances(create("logistic-normal"), context, [0], cache)
    with pytest.raises(
        ImportanceError, match="covariances must be finite, got NaN or infinity; look for NaN"
    ):
        compute_laplace_covariances(context, n_parts=1, cache=cache, n_draws=0)
    assert not list(tmp_path.glob("*.safetensors"))


def test_groups_of_one_and_two_channels_have_covariances() -> None:
    for n_channels in (1, 2):
        context = linear_case([1.0] * n_channels)
        for name in OPTIONS:
            found = compute_covariances(create(name, {"steps": 3}), context, [0, 1])["0"]
            assert found.covariances.shape == (2, n_channels, n_channels)
            assert found.covariances.isfinite().all()
            assert found.pairs(3) == ([], [])
            assert found.agreement().n_confirmed == 0


def test_seeds_decide_and_the_network_is_left_as_it_was() -> None:
    context = make_context(SmallLeNet, n_examples=40)
    context.network.train()
    method = create("logistic-normal", {"steps": 3})
    once, again = (compute_covariances(method, context, [4, 5]) for _ in range(2))
    for name, found in once.items():
        assert torch.equal(found.covariances, again[name].covariances)
        assert not torch.equal(found.covariances[0], found.covariances[1])
    assert context.network.training
    assert all(parameter.requires_grad for parameter in context.network.parameters())


@pytest.mark.parametrize(
    ("name", "options", "seeds", "message"),
    [
        ("dirichlet", {"estimator": "point"}, [0], "got estimator 'point'; try estimator=integral"),
        ("dirichlet", {"simplex": "network"}, [0], "own simplex, got simplex 'network'; try simplex=group"),
        ("magnitude", {}, [0], "need a posterior on the simplex, got Magnitude; try dirichlet"),
        ("dirichlet", {}, [], "seeds must be different and at least one, got \\[\\]"),
        ("dirichlet", {}, [1, 1], "seeds must be different and at least one, got \\[1, 1\\]"),
    ],
)
def test_what_has_no_covariances_is_refused_in_one_line(
    name: str, options: dict[str, Any], seeds: list[int], message: str
) -> None:
    with pytest.raises(ImportanceError, match=message) as caught:
        compute_covariances(create(name, options), linear_case([1.0, 2.0]), seeds)
    assert "\n" not in str(caught.value)


def test_too_few_samples_for_their_mean_are_refused_where_the_null_is_drawn() -> None:
    method = create("dirichlet", {"n_samples": 4, "steps": 1})
    compute_covariances(method, linear_case([1.0, 2.0]), [0])
    with pytest.raises(ImportanceError, match="null needs n_samples of at least 16, got 4; take more"):
        compute_covariances(method, linear_case([1.0, 2.0]), [0], n_draws=1)
