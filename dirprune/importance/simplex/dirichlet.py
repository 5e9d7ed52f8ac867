"""The Dirichlet: one concentration per channel; every pair of channels is negatively correlated."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dirprune.importance.simplex.family import SimplexFamily, dirichlet_covariance


class DirichletPosterior(SimplexFamily):
    """q(group) = Dirichlet(exp(logits)), initialised at the prior; its KL has a closed form."""

    def __init__(self, n_channels: Mapping[str, int], prior_concentration: float) -> None:
        super().__init__(n_channels, prior_concentration)
        self.logits = self.prior.log().requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """The logarithms of the concentrations, shape (n_total,)."""
        return [self.logits]

    @property
    def concentration(self) -> Tensor:
        """Concentrations of all channels, shape (n_total,), > 0."""
        return self.logits.exp()

    def mean(self) -> Tensor:
        """Return E[switch] = concentration / total, shape (n_total,); sums to 1 in each group."""
        return self._normalised(self.concentration)

    def covariance(self, group: str) -> Tensor:
        """Return (diag(m) - m m^T) / (a0 + 1), shape (n_channels, n_channels), from the mean and total."""
        concentration = self.split(self.concentration)[group]
        return dirichlet_covariance(concentration / concentration.sum(), concentration.sum())

    def sample(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw switches by normalising Gamma draws, differentiably; shape (n_samples, n_total).

        The derivative of a Gamma draw is the implicit one (Figurnov et al. 2018).
        """
        concentration = self.concentration.expand(n_samples, -1)
        return self._normalised(torch._standard_gamma(concentration, generator=rng))

    def kl(self, rng: torch.Generator | None = None) -> Tensor:
        """Return the sum over groups of KL(q || prior) in nats, a scalar >= 0, in closed form.

        KL = ln G(a0) - sum ln G(a) - ln G(b0) + sum ln G(b) + sum (a - b)(psi(a) - psi(a0)), with a and b
        the concentrations of q and the prior, a0 and b0 their totals, G the Gamma function, psi = (ln G)'.
        """
        q, prior = self.concentration, self.prior
        of_totals = torch.lgamma(self._totals(q)) - torch.lgamma(self._totals(prior))
        of_channels = torch.lgamma(prior) - torch.lgamma(q)
        beside = torch.digamma(q) - torch.digamma(self._totals(q)[self.group_of])
        return of_totals.sum() + (of_channels + (q - prior) * beside).sum()
