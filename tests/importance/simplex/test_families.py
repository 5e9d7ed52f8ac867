"""Families on the simplex: closed forms against samples, densities, one another and finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.distributions import Beta, Dirichlet, MultivariateNormal

from dirprune.importance.simplex import (
    DirichletPosterior,
    GeneralizedDirichletPosterior,
    LogisticNormalPosterior,
    SimplexFamily,
    draw_orders,
)
from dirprune.importance.simplex.covariances import LEAST_CORRELATION

N_CHANNELS = {"a": 4, "b": 2, "alone": 1}
PRIOR = 1.5
N_SAMPLES = 200_000


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_generalized(n_channels: dict[str, int], n_orders: int = 4) -> GeneralizedDirichletPosterior:
    return GeneralizedDirichletPosterior(n_channels, PRIOR, draw_orders(n_channels, n_orders, rng()))


FAMILIES: dict[str, Callable[[dict[str, int]], SimplexFamily]] = {
    "dirichlet": lambda n_channels: DirichletPosterior(n_channels, PRIOR),
    "generalized-dirichlet": make_generalized,
    "logistic-normal": lambda n_channels: LogisticNormalPosterior(n_channels, PRIOR, rank=2),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def make_family(name: str, n_channels: dict[str, int] | None = None, spread: float = 0.5) -> SimplexFamily:
    """Return a posterior whose parameters are some way off the prior, always the same ones."""
    posterior = FAMILIES[name](n_channels or N_CHANNELS)
    draws = rng(7)
    for parameter in posterior.parameters:
        parameter.data += spread * torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
    return posterior


@every_family
def test_samples_lie_on_the_simplex_of_every_group(name: str) -> None:
    for values in make_family(name).split(make_family(name).sample(500, rng()).detach()).values():
        assert (values >= 0).all()
        torch.testing.assert_close(values.sum(1), torch.ones(500, dtype=torch.float64))


@every_family
def test_means_and_covariances_are_those_of_samples(name: str) -> None:
    posterior = make_family(name)
    samples = posterior.split(posterior.sample(N_SAMPLES, rng()).detach())
    means = posterior.split(posterior.mean().detach())
    variances = posterior.split(posterior.variance().detach())
    for group, values in samples.items():
        covariance = posterior.covariance(group).detach()
        torch.testing.assert_close(values.mean(0), means[group], rtol=0, atol=3e-3)
        torch.testing.assert_close(values.T.cov().reshape(covariance.shape), covariance, rtol=0, atol=1.5e-3)
        rtol = 0.02 if name == "logistic-normal" else 1e-6  # of other samples
        torch.testing.assert_close(covariance.diagonal(), variances[group], rtol=rtol, atol=1e-12)


@every_family
def test_rows_of_covariances_and_a_single_channel_are_as_the_simplex_has_it(name: str) -> None:
    posterior = make_family(name)
    for group in N_CHANNELS:
        covariance = posterior.covariance(group).detach()
        assert covariance.sum(1).abs().max() < 1e-12
        torch.testing.assert_close(covariance, covariance.T)
        assert torch.linalg.eigvalsh(covariance).min() > -1e-12
    assert posterior.split(posterior.mean())["alone"].tolist() == pytest.approx([1.0])
    assert posterior.covariance("alone").tolist() == [[0.0]]
    assert posterior.split(posterior.signal_to_noise())["alone"].tolist() == pytest.approx([1.0])


@every_family
def test_each_family_begins_at_the_prior_or_near_it(name: str) -> None:
    posterior = FAMILIES[name](N_CHANNELS)
    is_near = name == "logistic-normal"
    kl = float(posterior.kl().detach())
    assert -1e-12 < kl < (0.3 if is_near else 1e-12)
    for group, n_channels in N_CHANNELS.items():
        mean = posterior.split(posterior.mean().detach())[group]
        expected = torch.full((n_channels,), 1 / n_channels, dtype=torch.float64)
        torch.testing.assert_close(mean, expected, rtol=0, atol=2e-3 if is_near else 1e-12)


@every_family
def test_gradients_through_samples_are_those_of_the_moments(name: str) -> None:
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    posterior = make_family(name, {"a": 4})
    (posterior.sample(N_SAMPLES, rng()).square() @ weights).mean().backward()

    @torch.no_grad()
    def expectation() -> Tensor:
        return weights @ (posterior.variance() + posterior.mean().square())

    for parameter in posterior.parameters:
        assert parameter.grad is not None
        place = tuple(0 for _ in parameter.shape)  # the first number of each, the same samples on both sides
        values = []
        for step in (1e-4, -2e-4):
            parameter.data[place] += step
            values.append(expectation())
        parameter.data[place] += 1e-4
        exact = float(values[0] - values[1]) / 2e-4
        assert abs(float(parameter.grad[place]) - exact) < 0.02 * weights.abs().max()


def log_density_of_sticks(posterior: GeneralizedDirichletPosterior, order: int, switches: Tensor) -> Tensor:
    """Return the log density of one group's switches in one order: of the Betas, and the Jacobian."""
    a, b = posterior.logits.exp().detach()[:, order]
    sticks = switches[:, posterior.orders[order]]
    left = 1 - torch.cat([torch.zeros(len(sticks), 1), sticks.cumsum(1)[:, :-1]], dim=1).double()
    density = torch.zeros(len(sticks), dtype=torch.float64)
    for i in range(sticks.shape[1] - 1):
        density += Beta(a[i], b[i]).log_prob(sticks[:, i] / left[:, i]) - left[:, i].log()
    return density


def test_kl_of_sticks_is_the_mean_log_ratio_to_the_dirichlet() -> None:
    posterior = GeneralizedDirichletPosterior({"a": 4}, PRIOR, torch.tensor([[2, 0, 3, 1]]))
    posterior.logits.data += 0.5 * torch.randn(2, 1, 4, generator=rng(3), dtype=torch.float64)
    switches = posterior.sample(N_SAMPLES, rng()).detach()
    prior = Dirichlet(torch.full((4,), PRIOR, dtype=torch.float64))
    ratio = log_density_of_sticks(posterior, 0, switches) - prior.log_prob(switches)
    assert float(posterior.kl().detach()) > 0.1
    assert abs(float(ratio.mean()) - float(posterior.kl().detach())) < 0.01


def test_kl_over_orders_bounds_that_of_the_mixture() -> None:
    posterior = make_generalized({"a": 4}, n_orders=2)
    posterior.logits.data += 0.5 * torch.randn(2, 2, 4, generator=rng(3), dtype=torch.float64)
    switches = posterior.sample(N_SAMPLES, rng()).detach()
    densities = torch.stack([log_density_of_sticks(posterior, order, switches) for order in range(2)])
    prior = Dirichlet(torch.full((4,), PRIOR, dtype=torch.float64))
    ratio = densities.logsumexp(0) - torch.tensor(2.0).log() - prior.log_prob(switches)
    assert 0 < float(ratio.mean()) < float(posterior.kl().detach())


def log_density_of_softmax(posterior: LogisticNormalPosterior, switches: Tensor) -> Tensor:
    """Return the log density of one group's switches by additive log-ratios, the last channel below."""
    n_channels = switches.shape[1]
    contrast = torch.cat([torch.eye(n_channels - 1), -torch.ones(n_channels - 1, 1)], dim=1).double()
    factor, scale = posterior.factor.detach(), posterior.log_scale.exp().detach()
    covariance = contrast @ (factor @ factor.T + scale.square().diag()) @ contrast.T
    ratios = (switches[:, :-1] / switches[:, -1:]).log()
    normal = MultivariateNormal(contrast @ posterior.location.detach(), covariance)
    return normal.log_prob(ratios) - switches.log().sum(1)


@pytest.mark.parametrize(("rank", "n_channels"), [(0, 4), (2, 4), (3, 2), (2, 20)])
def test_kl_of_the_softmax_is_the_mean_log_ratio_to_the_dirichlet(rank: int, n_channels: int) -> None:
    posterior = LogisticNormalPosterior({"a": n_channels}, PRIOR, rank)
    draws = rng(3)
    for parameter in posterior.parameters:
        parameter.data += 0.4 * torch.randn(parameter.shape, generator=draws, dtype=torch.float64)
    switches = posterior.sample(50_000, rng()).detach()
    prior = Dirichlet(torch.full((n_channels,), PRIOR, dtype=torch.float64))
    ratio = log_density_of_softmax(posterior, switches) - prior.log_prob(switches)
    estimates = torch.stack([posterior.kl(rng(seed)).detach() for seed in range(30)])
    assert abs(float(ratio.mean() - estimates.mean())) < 0.02 + 0.005 * n_channels


def test_kl_of_the_softmax_converges_and_does_not_see_what_is_added_to_all() -> None:
    posterior = make_family("logistic-normal")
    assert isinstance(posterior, LogisticNormalPosterior)
    estimates = torch.stack([posterior.kl(rng(seed)).detach() for seed in range(100)])
    assert estimates.std() < 0.03
    before = posterior.kl(rng()).detach()
    posterior.location.data += 3.0
    posterior.factor.data += 0.7
    torch.testing.assert_close(posterior.kl(rng()).detach(), before, rtol=0, atol=0.15)


@torch.no_grad()
def test_correlations_in_a_wide_network_are_as_exact_as_their_least_size_asks_for() -> None:
    found = []
    for seed in range(4):
        posterior = LogisticNormalPosterior({"narrow": 12, "wide": 9000}, 3.0, rank=0, seed=seed)
        covariance = posterior.covariance("narrow")
        deviations = covariance.diagonal().sqrt()
        found.append((covariance / deviations.outer(deviations))[~torch.eye(12, dtype=torch.bool)])
    error = float(torch.stack(found).var(0).mean().sqrt())
    assert 2 * error < LEAST_CORRELATION


def test_generalized_dirichlet_with_the_right_parameters_is_the_dirichlet() -> None:
    concentration = torch.tensor([0.6, 2.0, 3.5, 1.2], dtype=torch.float64)
    dirichlet = DirichletPosterior({"a": 4}, PRIOR)
    dirichlet.logits.data = concentration.log()
    orders = torch.tensor([[0, 1, 2, 3], [2, 0, 3, 1]])
    general = GeneralizedDirichletPosterior({"a": 4}, PRIOR, orders)
    for number, order in enumerate(orders):
        own = concentration[order]
        after = own.flip(0).cumsum(0).flip(0) - own
        general.logits.data[0, number] = own.log()
        general.logits.data[1, number] = after.clamp_min(1e-3).log()
    torch.testing.assert_close(general.mean(), dirichlet.mean())
    torch.testing.assert_close(general.covariance("a"), dirichlet.covariance("a"))
    torch.testing.assert_close(general.kl(), dirichlet.kl())
    samples = general.sample(N_SAMPLES, rng()).detach()
    exact = Dirichlet(concentration).log_prob(samples[:1000])
    for number in range(2):
        torch.testing.assert_close(log_density_of_sticks(general, number, samples[:1000]), exact)
    torch.testing.assert_close(samples.T.cov(), dirichlet.covariance("a").detach(), rtol=0, atol=1e-3)


def test_orders_are_permutations_within_groups_and_their_reverses() -> None:
    orders = draw_orders({"a": 5, "b": 3}, 4, rng())
    assert orders.shape == (4, 8)
    assert orders[:, :5].sort(dim=1).values.tolist() == [list(range(5))] * 4
    assert orders[:, 5:].sort(dim=1).values.tolist() == [[5, 6, 7]] * 4
    assert orders[1, :5].tolist() == orders[0, :5].flip(0).tolist()
    assert not torch.equal(orders[0], orders[2])


def test_mean_and_snr_order_a_dirichlet_alike_and_not_every_other_family() -> None:
    dirichlet = make_family("dirichlet", {"a": 30})
    assert torch.equal(dirichlet.mean().argsort(), dirichlet.signal_to_noise().argsort())
    general = make_family("generalized-dirichlet", {"a": 30})
    assert not torch.equal(general.mean().argsort(), general.signal_to_noise().argsort())


@every_family
def test_tiny_concentrations_of_the_prior_keep_everything_finite(name: str) -> None:
    makers: dict[str, Callable[[], SimplexFamily]] = {
        "dirichlet": lambda: DirichletPosterior({"a": 5}, 0.02),
        "generalized-dirichlet": lambda: GeneralizedDirichletPosterior(
            {"a": 5}, 0.02, draw_orders({"a": 5}, 2, rng())
        ),
        "logistic-normal": lambda: LogisticNormalPosterior({"a": 5}, 0.02),
    }
    posterior = makers[name]()
    (posterior.sample(500, rng())[:, 0].sum() + posterior.kl(rng())).backward()
    for parameter in posterior.parameters:
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert posterior.mean().isfinite().all()
