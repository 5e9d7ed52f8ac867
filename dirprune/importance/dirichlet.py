"""Dirichlet switches: a posterior on the simplex over each group's channels, fitted for all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dirprune.errors import ImportanceError, suggest
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.registry import register
from dirprune.switches import switched

ESTIMATORS = ("integral", "point")


@dataclass(frozen=True)
class DirichletOptions:
    """Options of `DirichletSwitches`.

    Attributes:
        estimator: "point" (the posterior's mean goes through the network) or "integral" (samples do).
        prior_concentration: Of each channel in the symmetric prior; > 0.
        steps: Optimiser steps; >= 0.
        lr: Learning rate of Adam on the logarithm of the concentrations, falling to zero along a cosine; > 0.
        batch_size: Calibration examples in a step; >= 1.
        n_samples: Different samples in a step, dealt out to its examples in turn; >= 1; "integral" only.
    """

    estimator: str = "integral"
    prior_concentration: float = 3.0
    steps: int = 120
    lr: float = 0.1
    batch_size: int = 128
    n_samples: int = 128

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            hint = suggest(self.estimator, ESTIMATORS)
            raise ImportanceError(f"estimator must be 'point' or 'integral', got {self.estimator!r}{hint}")
        for name in ("prior_concentration", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ImportanceError(f"{name} must be a number above 0, got {getattr(self, name)}")
        for name, least in (("steps", 0), ("batch_size", 1), ("n_samples", 1)):
            if getattr(self, name) < least:
                raise ImportanceError(f"{name} must be at least {least}, got {getattr(self, name)}")


class DirichletPosterior:
    """One Dirichlet for each channel group, kept side by side in flat tensors of n_channels in total.

    q(group) = Dirichlet(exp(logits)), initialised at the symmetric prior Dirichlet(prior_concentration).
    Everything is float64 on the CPU: it is small, and draws are the same whatever the network runs on.

    Args:
        n_channels: Channels of each group.
        prior_concentration: Of each channel; > 0.
    """

    def __init__(self, n_channels: Mapping[str, int], prior_concentration: float) -> None:
        self.n_channels = dict(n_channels)
        sizes = torch.tensor(list(self.n_channels.values()), dtype=torch.int64)
        self.group_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        self.n_beside = sizes[self.group_of].double()
        self.prior = torch.full((len(self.group_of),), prior_concentration, dtype=torch.float64)
        self.logits = self.prior.log().requires_grad_()

    @property
    def concentration(self) -> Tensor:
        """Concentrations of all channels, shape (n_total,), > 0."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        """Return E[switch] = concentration / total, shape (n_total,); sums to 1 in each group."""
        return self._normalised(self.concentration)

    def sample(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw switches by normalising Gamma draws, differentiably; shape (n_samples, n_total).

        The derivative of a Gamma draw is the implicit one (Figurnov et al. 2018).
        """
        concentration = self.concentration.expand(n_samples, -1)
        return self._normalised(torch._standard_gamma(concentration, generator=rng))

    def kl(self) -> Tensor:
        """Return the sum over groups of KL(q || prior) in nats, a scalar >= 0.

        KL = ln G(a0) - sum ln G(a) - ln G(b0) + sum ln G(b) + sum (a - b)(psi(a) - psi(a0)), with a and b
        the concentrations of q and the prior, a0 and b0 their totals, G the Gamma function, psi = (ln G)'.
        """
        q, prior = self.concentration, self.prior
        of_totals = torch.lgamma(self._totals(q)) - torch.lgamma(self._totals(prior))
        of_channels = torch.lgamma(prior) - torch.lgamma(q)
        beside = torch.digamma(q) - torch.digamma(self._totals(q)[self.group_of])
        return of_totals.sum() + (of_channels + (q - prior) * beside).sum()

    def split(self, flat: Tensor) -> Scores:
        """Split the last axis of a flat tensor into one tensor for each group."""
        return dict(zip(self.n_channels, flat.split(list(self.n_channels.values()), dim=-1), strict=True))

    def _totals(self, flat: Tensor) -> Tensor:
        """Sum over the channels of each group: (..., n_total) to (..., n_groups)."""
        zeros = flat.new_zeros(*flat.shape[:-1], len(self.n_channels))
        return zeros.index_add(-1, self.group_of, flat)

    def _normalised(self, flat: Tensor) -> Tensor:
        totals = self._totals(flat).clamp_min(torch.finfo(flat.dtype).tiny)
        return flat / totals[..., self.group_of]


@register(
    "dirichlet",
    "the mean of a Dirichlet posterior over switches on the channels, all groups fitted jointly",
    paper="Adamczewski and Park 2021, Dirichlet Pruning for Neural Network Compression, arXiv:2011.05985",
    needs_data=True,
    needs_gradients=True,
    stochastic=True,
)
class DirichletSwitches(Scorer):
    """Scores each channel by its posterior mean on the simplex (Adamczewski and Park 2021).

    A channel is multiplied by n_channels * switch where it enters its consumers, so that the prior's mean,
    1 / n_channels each, leaves the network as it is and zero is what pruning does. The weights stay frozen
    and batch norm in evaluation mode; only the concentrations are fitted, all groups together, to minimise

        E_q[loss per example] + KL(q || prior) / n_examples.
    """

    Options = DirichletOptions

    def score(self, context: ScoringContext) -> Scores:
        """Return posterior means in (0, 1), each of shape (n_channels,) and of sum 1."""
        posterior = DirichletPosterior(context.grouping.n_channels, self.options.prior_concentration)
        if posterior.n_channels:
            fit_(posterior, context, self.options)
        return posterior.split(posterior.mean().detach())


def fit_(posterior: DirichletPosterior, context: ScoringContext, options: DirichletOptions) -> None:
    """Fit the concentrations of all groups in one pass with Adam."""
    rng = torch.Generator().manual_seed(context.seed)
    optimiser = torch.optim.Adam([posterior.logits], lr=options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=max(options.steps, 1))
    batches = draw_batches(len(context.calibration), options.batch_size, options.steps, rng)
    with torch.enable_grad():
        for positions in batches:
            optimiser.zero_grad()
            compute_loss(posterior, context, positions, options, rng).backward()
            optimiser.step()
            schedule.step()


def compute_loss(
    posterior: DirichletPosterior,
    context: ScoringContext,
    positions: Tensor,
    options: DirichletOptions,
    rng: torch.Generator,
) -> Tensor:
    """Return the loss per example of some calibration examples plus KL / n_examples, a scalar in nats.

    Args:
        positions: Of the examples in the calibration split, shape (batch,).
        rng: For the samples; the point estimator draws none.
    """
    inputs, targets = context.load(positions)
    if options.estimator == "point":
        switches = posterior.mean()
    else:
        dealt = torch.arange(len(positions)) % options.n_samples
        switches = posterior.sample(min(options.n_samples, len(positions)), rng)[dealt]
    factors = (switches * posterior.n_beside).to(inputs.device, inputs.dtype)
    with switched(context.network, context.grouping, posterior.split(factors)):
        fit = context.task.summed_loss(context.network(inputs), targets) / len(positions)
    return fit.to("cpu", torch.float64) + posterior.kl() / len(context.calibration)


def draw_batches(n_examples: int, batch_size: int, n_batches: int, rng: torch.Generator) -> Iterator[Tensor]:
    """Yield positions of `n_batches` batches: random orders of all examples, one after another, cut up."""
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(n_batches):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(n_examples, generator=rng)])
        yield order[:batch_size]
        order = order[batch_size:]
