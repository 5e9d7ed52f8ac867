"""Dirichlet switches against closed forms, known answers and finite differences."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from dirprune.importance.simplex import (
    DirichletOptions,
    DirichletPosterior,
    compute_loss,
    draw_batches,
    fit_,
)
from dirprune.tasks import make_task
from tests.importance.cases import evidence_case, linear_case, make_context, score

CONCENTRATIONS = torch.tensor(
    [0.4, 1.0, 2.5, 3.0, 0.7, 8.0], dtype=torch.float64
)  # groups of 4 and 2 channels


def make_posterior(prior: float = 1.5) -> DirichletPosterior:
    posterior = DirichletPosterior({"a": 4, "b": 2}, prior)
    posterior.logits.data = CONCENTRATIONS.log()
    return posterior


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_posterior_starts_at_the_prior() -> None:
    posterior = DirichletPosterior({"a": 4, "b": 2}, 1.5)
    torch.testing.assert_close(posterior.concentration, torch.full((6,), 1.5, dtype=torch.float64))
    assert abs(posterior.kl()) < 1e-12
    torch.testing.assert_close(posterior.mean(), torch.tensor([0.25] * 4 + [0.5] * 2, dtype=torch.float64))


def test_kl_equals_the_mean_log_ratio_of_samples() -> None:
    posterior = make_posterior()
    samples = posterior.split(posterior.sample(200_000, rng()).detach())
    estimate = 0.0
    for name, concentration in posterior.split(CONCENTRATIONS).items():
        q = torch.distributions.Dirichlet(concentration)
        prior = torch.distributions.Dirichlet(torch.full_like(concentration, 1.5))
        estimate += float((q.log_prob(samples[name]) - prior.log_prob(samples[name])).mean())
    assert abs(estimate - float(posterior.kl().detach())) < 0.02


def test_means_and_negative_covariances_of_samples_are_the_dirichlets() -> None:
    posterior = make_posterior()
    samples = posterior.split(posterior.sample(200_000, rng()).detach())
    for name, concentration in posterior.split(CONCENTRATIONS).items():
        total = concentration.sum()
        mean = concentration / total
        covariance = (mean.diag() - mean.outer(mean)) / (total + 1)
        assert (covariance - covariance.diag().diag() <= 0).all()
        torch.testing.assert_close(samples[name].mean(0), mean, rtol=0, atol=3e-3)
        torch.testing.assert_close(samples[name].T.cov(), covariance, rtol=0, atol=1e-3)
        torch.testing.assert_close(posterior.split(posterior.mean())[name].detach(), mean)


def test_samples_lie_on_the_simplex_also_for_tiny_concentrations() -> None:
    posterior = DirichletPosterior({"a": 3}, 1e-3)
    samples = posterior.sample(2000, rng())
    assert samples.isfinite().all()
    assert (
        (samples.sum(1) - 1).abs() < 1e-9
    ).double().mean() > 0.99  # the rest underflowed to zero altogether
    samples[:, 0].sum().backward()
    assert posterior.logits.grad is not None
    assert posterior.logits.grad.isfinite().all()


def test_reparameterised_gradient_is_that_of_the_exact_expectation() -> None:
    # E[sum_i w_i s_i^2] has the closed form sum_i w_i m_i (a_i + 1) / (a0 + 1)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)

    def expectation(logits: Tensor) -> Tensor:
        a = logits.exp()
        return (weights * a * (a + 1)).sum() / (a.sum() * (a.sum() + 1))

    posterior = DirichletPosterior({"a": 4}, 1.0)
    posterior.logits.data = CONCENTRATIONS[:4].log()
    samples = posterior.sample(400_000, rng())
    (samples.square() @ weights).mean().backward()
    logits = CONCENTRATIONS[:4].log()
    for channel in range(4):
        step = torch.zeros(4, dtype=torch.float64)
        step[channel] = 1e-5
        exact = (expectation(logits + step) - expectation(logits - step)) / 2e-5
        assert abs(float(posterior.logits.grad[channel] - exact)) < 5e-3  # type: ignore[index]


@pytest.mark.parametrize("estimator", ["point", "integral"])
def test_without_a_signal_in_the_loss_the_posterior_stays_the_prior(estimator: str) -> None:
    constant = make_task(lambda outputs, targets: outputs.flatten() * 0 + 1, "mse")
    context = dataclasses.replace(linear_case([1, 2, 3]), task=constant)
    options = DirichletOptions(estimator=estimator, steps=30)
    posterior = DirichletPosterior({"0": 3}, 2.0)
    posterior.logits.data += torch.tensor([0.7, -0.4, 0.1])  # from anywhere, the KL leads back
    fit_(posterior, context, dataclasses.replace(options, steps=500, lr=0.05))
    torch.testing.assert_close(posterior.concentration, posterior.prior, rtol=0.05, atol=0)
    torch.testing.assert_close(
        score("dirichlet", context, dataclasses.asdict(options))["0"],
        torch.full((3,), 1 / 3, dtype=torch.float64),
    )


@pytest.mark.parametrize("estimator", ["point", "integral"])
def test_order_of_the_means_is_how_much_each_removal_hurts(estimator: str) -> None:
    context = evidence_case([0.1, 0.9, 0.3, 0.02])
    scores = score("dirichlet", context, {"estimator": estimator, "steps": 200})["0"]
    assert scores.argsort(descending=True).tolist() == [1, 2, 0, 3]
    assert abs(float(scores.sum()) - 1) < 1e-9


def test_group_with_one_channel_scores_one() -> None:
    assert score("dirichlet", linear_case([2.0]))["0"].tolist() == [1.0]


@torch.no_grad()
def test_loss_is_the_mean_per_example_plus_kl_over_the_number_of_examples() -> None:
    context = make_context(n_examples=40)
    posterior = DirichletPosterior(context.grouping.n_channels, 2.0)
    options = DirichletOptions(estimator="point")
    positions = torch.arange(10)
    inputs, targets = context.load(positions)
    dense = torch.nn.functional.cross_entropy(context.network(inputs), targets)
    at_prior = compute_loss(posterior, context, positions, options, rng())
    assert abs(float(at_prior - dense)) < 1e-5  # the prior's mean leaves the network as it is
    posterior.logits.data += 0.5  # the same means, a KL above zero
    away = compute_loss(posterior, context, positions, options, rng())
    assert posterior.kl() > 0.1
    assert abs(float(away - at_prior - posterior.kl() / 40)) < 1e-5


def test_all_groups_are_fitted_in_one_pass() -> None:
    context = make_context(n_examples=40)
    n_forward = 0

    def count(module: object, inputs: tuple[torch.Tensor]) -> None:
        nonlocal n_forward
        n_forward += len(inputs[0]) == 8  # what a pass takes is seen on two examples

    context.network.register_forward_pre_hook(count)
    posterior = DirichletPosterior(context.grouping.n_channels, 1.0)
    fit_(posterior, context, DirichletOptions(steps=5, batch_size=8))
    assert n_forward == 5
    for values in posterior.split(posterior.concentration.detach()).values():
        assert (values != 1.0).all()


def test_batches_see_every_example_equally_often() -> None:
    batches = list(draw_batches(10, 4, 5, rng()))
    assert [len(batch) for batch in batches] == [4] * 5
    assert torch.cat(batches)[:10].sort().values.tolist() == list(range(10))
    assert torch.cat(batches)[10:].sort().values.tolist() == list(range(10))
    assert len(next(draw_batches(3, 8, 1, rng()))) == 8
