"""The logistic normal: the softmax of a Gaussian, whose covariance lets channels go together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from dirprune.importance.simplex.family import SimplexFamily

N_KL_SAMPLES = (64, 1024)
N_KL_NUMBERS = 2**20
N_MOMENT_SAMPLES = (2_000, 20_000)
N_MOMENT_NUMBERS = 2**24


class LogisticNormalPosterior(SimplexFamily):
    """q(group) = softmax(z), z ~ Normal(location, F F^T + diag(scale^2)) (Aitchison and Shen 1980).

    It begins where the logarithms of the ratios of switches have the means and covariances that they have
    under the prior: a Dirichlet(p) is the softmax of independent logarithms of Gamma(p) draws, of variance
    psi'(p) each. F begins small and random, as at zero nothing would ever move it.

    Args:
        n_channels: Channels of each group; n_total in all.
        prior_concentration: Of each channel; > 0.
        rank: Columns of F; >= 0.
        seed: Of the first F and of the samples behind moments.
    """

    def __init__(
        self, n_channels: Mapping[str, int], prior_concentration: float, rank: int = 2, seed: int = 0
    ) -> None:
        super().__init__(n_channels, prior_concentration)
        self.seed, self.rank = seed, rank
        scale = torch.polygamma(1, self.prior).sqrt()
        normal = torch.randn(len(scale), rank, generator=self._own_rng(), dtype=torch.float64)
        self.location = torch.zeros_like(self.prior).requires_grad_()
        self.factor = (0.01 * normal * scale.unsqueeze(1)).requires_grad_()
        self.log_scale = scale.log().requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """Location, shape (n_total,), factor F, shape (n_total, rank), and log scale, shape (n_total,)."""
        return [self.location, self.factor, self.log_scale]

    def sample(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw switches as the softmax of Gaussian draws, differentiably; shape (n_samples, n_total)."""
        logits = self.location + self._draw(n_samples, rng)
        return (logits - self._log_sum_exp(logits)[..., self.group_of]).exp()

    def mean(self) -> Tensor:
        """Return E[softmax(z)], the estimated gradient of E[ln sum exp z] by the location; shape (n_total,).

        That takes over the known part of the expansion, so that differences between channels are told apart
        that would drown in the noise of a plain average. The samples are always the same ones.
        """
        with torch.enable_grad():
            location = self.location.detach().requires_grad_()
            total = self._expected_log_sum_exp(location, self.n_moment_samples, self._own_rng()).sum()
            (mean,) = torch.autograd.grad(total, location)
        return mean

    def covariance(self, group: str) -> Tensor:
        """Return the covariance of 20,000 samples of the group alone, shape (n_channels, n_channels).

        The error of a correlation is about 0.008, whatever else there is in the network.
        """
        size, n_samples = self.n_channels[group], N_MOMENT_SAMPLES[1]
        location, log_scale = (self.split(each)[group] for each in (self.location, self.log_scale))
        factor = self.split(self.factor.T)[group].T
        rng = self._own_rng()
        total, moment = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        with torch.no_grad():
            for block in torch.arange(n_samples).split(max(2, N_MOMENT_NUMBERS // size)):
                own, shared = self._draw_pairs(size, factor, -(-len(block) // 2), rng)
                drawn = own * log_scale.exp() + shared
                beside = (location + torch.cat([drawn, -drawn])[: len(block)]).softmax(1) - 1 / size
                total += beside.sum(0)
                moment += beside.T @ beside
        return (moment - total.outer(total) / n_samples) / (n_samples - 1)

    def variance(self) -> Tensor:
        """Return the variance of `n_moment_samples` samples, shape (n_total,)."""
        with torch.no_grad():
            return self.sample(self.n_moment_samples, self._own_rng()).var(0)

    @property
    def n_moment_samples(self) -> int:
        """Samples behind means and variances: 20,000 up to 838 channels in all, fewer beyond."""
        return self._affordable(N_MOMENT_SAMPLES, N_MOMENT_NUMBERS)

    def kl(self, rng: torch.Generator | None = None) -> Tensor:
        """Return the sum of KL(q || prior) on the simplex; only E[ln sum exp z] is estimated, by sampling.

        With the coordinates y_i = z_i - z_n = ln(s_i / s_n), i < n, the density of s is
        Normal(y) / (s_1 ... s_n) and the prior's G(np) / G(p)^n * prod s_i^{p-1}, so that

            KL = -H(y) - ln G(np) + n ln G(p) - p sum_i E[ln s_i],  E[ln s_i] = location_i - E[ln sum exp z].

        H(y) is the Gaussian's entropy, and the covariance of y has the determinant
        det(S) 1^T S^-1 1 with S = F F^T + diag(scale^2), whichever channel is taken for the n-th: what is
        added to all z alike, which the softmax does not see, is integrated out.
        """
        n_samples = self._affordable(N_KL_SAMPLES, N_KL_NUMBERS)
        rng = self._own_rng() if rng is None else rng
        log_sum_exp = self._expected_log_sum_exp(self.location, n_samples, rng)
        log_switches = self.location - log_sum_exp[self.group_of]
        sizes = self._totals(torch.ones_like(self.prior))
        entropy = (self._log_determinant() + (sizes - 1) * math.log(2 * math.pi * math.e)) / 2
        normaliser = torch.lgamma(self._totals(self.prior)) - self._totals(torch.lgamma(self.prior))
        kl = -entropy - normaliser - self._totals(self.prior * log_switches)
        return torch.where(sizes > 1, kl, 0.0).sum()

    def _draw(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw z - location, shape (n_samples, n_total).

        Draws come in pairs of opposite sign, and what is drawn for each channel alone is handed on to the
        next channel of the group from pair to pair, so that noise that favours a channel cancels.
        """
        n_pairs = -(-n_samples // 2)
        sizes = list(self.n_channels.values())
        parts = [
            self._draw_pairs(size, factor, n_pairs, rng)
            for size, factor in zip(sizes, self.factor.split(sizes), strict=True)
        ]
        own, shared = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        drawn = own * self.log_scale.exp() + shared
        return torch.stack([drawn, -drawn], dim=1).flatten(0, 1)[:n_samples]

    def _draw_pairs(
        self, size: int, factor: Tensor, n_pairs: int, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw for one group what each channel has alone and what they share, both (n_pairs, n_channels)."""
        pair = torch.arange(n_pairs).unsqueeze(1)
        own = torch.randn(-(-n_pairs // size), size, generator=rng, dtype=torch.float64)
        shared = torch.randn(n_pairs, self.rank, generator=rng, dtype=torch.float64)
        handed_on = own[pair // size, (torch.arange(size) + pair) % size]
        return handed_on, shared @ factor.T

    def _expected_log_sum_exp(self, location: Tensor, n_samples: int, rng: torch.Generator) -> Tensor:
        """Estimate E[ln sum exp z] of each group, with the Gaussian around `location`; shape (n_groups,).

        The second-order term of the expansion around the location has a known mean, tr(H S) / 2 with
        H = diag(g) - g g^T and g = softmax(location): as a control variate it takes most of the noise away.
        """
        slope = (location - self._log_sum_exp(location)[self.group_of]).exp()
        variance = (2 * self.log_scale).exp()
        zeros = slope.new_zeros(len(self.n_channels), self.rank)
        shared = zeros.index_add(0, self.group_of, slope.unsqueeze(1) * self.factor)
        along_slope = self._totals(slope.square() * variance) + shared.square().sum(1)
        known = self._totals(slope * (variance + self.factor.square().sum(1))) - along_slope
        drawn = self._draw(n_samples, rng)
        values = self._log_sum_exp(location + drawn)
        control = self._totals(slope * drawn.square()) - self._totals(slope * drawn).square()
        with torch.no_grad():
            centred = control - control.mean(0)
            weight = (centred * values).mean(0) / centred.square().mean(0).clamp_min(1e-300)
        return values.mean(0) - weight * (control.mean(0) - known)

    def _log_sum_exp(self, logits: Tensor) -> Tensor:
        """Return ln sum exp over each group: (..., n_total) to (..., n_groups)."""
        parts = [part.logsumexp(-1) for part in self.split(logits).values()]
        return torch.stack(parts, dim=-1) if parts else logits

    def _log_determinant(self) -> Tensor:
        """Return ln det(S) + ln(1^T S^-1 1) of each group, by Woodbury, shape (n_groups,)."""
        precision = (-2 * self.log_scale).exp()
        weighted = self.factor * precision.unsqueeze(1)
        n_groups = len(self.n_channels)
        outer = weighted.unsqueeze(2) * self.factor.unsqueeze(1)
        inner = outer.new_zeros(n_groups, self.rank, self.rank).index_add(0, self.group_of, outer)
        inner = inner + torch.eye(self.rank, dtype=torch.float64)
        sums = weighted.new_zeros(n_groups, self.rank).index_add(0, self.group_of, weighted)
        solved = torch.linalg.solve(inner, sums.unsqueeze(2)).squeeze(2)
        along_ones = self._totals(precision) - (sums * solved).sum(1)
        return self._totals(2 * self.log_scale) + torch.logdet(inner) + along_ones.log()

    def _affordable(self, bounds: tuple[int, int], n_numbers: int) -> int:
        """Return how many samples make `n_numbers` numbers, within bounds."""
        least, most = bounds
        return min(max(n_numbers // len(self.prior), least), most)

    def _own_rng(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)
