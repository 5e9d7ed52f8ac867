"""The logistic normal: the softmax of a Gaussian, whose covariance lets channels go together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from dirprune.importance.simplex.family import SimplexFamily

N_KL_SAMPLES = (64, 1024)
N_KL_NUMBERS = 2**20
N_MOMENT_SAMPLES = (2_000, 20_000)
N_MOMENT_NUMBERS = 2**24
N_NUMBERS_AT_ONCE = 2**17
"""Of the samples behind moments. That is a MiB, of which about ten are there at once."""


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
        return self._softmax(self.location + self._draw(n_samples, rng))

    @torch.no_grad()
    def mean(self) -> Tensor:
        """Return E[softmax(z)], the estimated gradient of E[ln sum exp z] by the location; shape (n_total,).

        That takes over the known part of the expansion, so that differences between channels are told apart
        that would drown in the noise of a plain average. The samples are always the same ones: blocks of them
        are looked at twice, for the weight of the control variate and for the gradient.
        """
        location = self.location.detach().requires_grad_()
        slope = self._softmax(location)
        parts = [self._sample_log_sum_exp(location, slope, drawn) for drawn in self._draw_for_moments()]
        weight = _weigh_control(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        with torch.enable_grad():
            known = (weight * self._expected_control(self._softmax(location))).sum()
        (mean,) = torch.autograd.grad(known, location)
        for drawn in self._draw_for_moments():
            with torch.enable_grad():
                values, control = self._sample_log_sum_exp(location, self._softmax(location), drawn)
                total = (values - weight * control).sum() / self.n_moment_samples
            mean = mean + torch.autograd.grad(total, location)[0]
        return mean

    def covariance(self, group: str) -> Tensor:
        """Return the covariance of 20,000 samples of the group alone, shape (n_channels, n_channels).

        The error of a correlation is about 0.008, whatever else there is in the network.
        """
        size, n_samples = self.n_channels[group], N_MOMENT_SAMPLES[1]
        location, log_scale = (self.split(each)[group] for each in (self.location, self.log_scale))
        factor = self.split(self.factor.T)[group].T
        rng, n_at_once = self._own_rng(), _count_at_once(size)
        total, moment = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        with torch.no_grad():
            # Stretches are blocks of earlier versions: with the same draws, what is stored stays right.
            for stretch in torch.arange(n_samples).split(max(2, N_MOMENT_NUMBERS // size)):
                for drawn in draw_blocks([size], factor, log_scale, len(stretch), rng, n_at_once):
                    beside = (location + drawn).softmax(1) - 1 / size
                    total += beside.sum(0)
                    moment += beside.T @ beside
        return (moment - total.outer(total) / n_samples) / (n_samples - 1)

    def variance(self) -> Tensor:
        """Return the variance of `n_moment_samples` samples, shape (n_total,)."""
        n_samples = self.n_moment_samples
        total = moment = torch.zeros_like(self.prior)
        centre = self._softmax(self.location.detach())
        with torch.no_grad():
            for drawn in self._draw_for_moments():
                beside = self._softmax(self.location + drawn) - centre
                total, moment = total + beside.sum(0), moment + beside.square().sum(0)
        return (moment - total.square() / n_samples) / (n_samples - 1)

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
        """Draw z - location, differentiably; shape (n_samples, n_total)."""
        (drawn,) = self._draw_blocks(n_samples, rng, n_samples)
        return drawn

    def _draw_for_moments(self) -> Iterator[Tensor]:
        """Yield z - location of the samples behind means and variances in blocks, each (n, n_total)."""
        return self._draw_blocks(self.n_moment_samples, self._own_rng(), _count_at_once(len(self.prior)))

    def _draw_blocks(self, n_samples: int, rng: torch.Generator, n_at_once: int) -> Iterator[Tensor]:
        sizes = list(self.n_channels.values())
        return draw_blocks(sizes, self.factor, self.log_scale, n_samples, rng, n_at_once)

    def _expected_log_sum_exp(self, location: Tensor, n_samples: int, rng: torch.Generator) -> Tensor:
        """Estimate E[ln sum exp z] of each group, with the Gaussian around `location`; shape (n_groups,)."""
        slope = self._softmax(location)
        known = self._expected_control(slope)
        values, control = self._sample_log_sum_exp(location, slope, self._draw(n_samples, rng))
        return values.mean(0) - _weigh_control(values, control) * (control.mean(0) - known)

    def _sample_log_sum_exp(self, location: Tensor, slope: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """Return ln sum exp z and its control variate, both (n_samples, n_groups).

        The second-order term of the expansion around the location has a known mean, tr(H S) / 2 with
        H = diag(g) - g g^T and g = softmax(location): as a control variate it takes most of the noise away.

        Args:
            location: Shape (n_total,).
            slope: g, shape (n_total,).
            drawn: z - location, shape (n_samples, n_total).
        """
        values = self._log_sum_exp(location + drawn)
        control = self._totals(slope * drawn.square()) - self._totals(slope * drawn).square()
        return values, control

    def _expected_control(self, slope: Tensor) -> Tensor:
        """Return the mean tr(H S) of the control variate of each group, shape (n_groups,)."""
        variance = (2 * self.log_scale).exp()
        zeros = slope.new_zeros(len(self.n_channels), self.rank)
        shared = zeros.index_add(0, self.group_of, slope.unsqueeze(1) * self.factor)
        along_slope = self._totals(slope.square() * variance) + shared.square().sum(1)
        return self._totals(slope * (variance + self.factor.square().sum(1))) - along_slope

    def _softmax(self, logits: Tensor) -> Tensor:
        """Return the softmax over each group, shape (..., n_total)."""
        return (logits - self._log_sum_exp(logits)[..., self.group_of]).exp()

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


def draw_blocks(
    sizes: Sequence[int],
    factor: Tensor,
    log_scale: Tensor,
    n_samples: int,
    rng: torch.Generator,
    n_at_once: int,
) -> Iterator[Tensor]:
    """Draw from Normal(0, F F^T + diag(scale^2)) for groups of channels, the same in blocks of any size.

    Draws come in pairs of opposite sign, and what is drawn for each channel alone is handed on to the
    next channel of the group from pair to pair, so that noise that favours a channel cancels.

    Args:
        sizes: Channels of each group; n in all.
        factor: F, shape (n, rank).
        log_scale: Shape (n,).
        n_samples: In all.
        rng: All that is random is drawn from it before the first block.
        n_at_once: Samples in a block, rounded up to pairs.
    Yields:
        Blocks of samples, each of shape (n_at_once or fewer, n).
    """
    n_pairs = -(-n_samples // 2)
    drawn_for = []
    for size in sizes:
        own = torch.randn(-(-n_pairs // size), size, generator=rng, dtype=torch.float64)
        drawn_for.append((own, torch.randn(n_pairs, factor.shape[1], generator=rng, dtype=torch.float64)))
    for pairs in torch.arange(n_pairs).split(-(-n_at_once // 2)):
        parts = []
        for (own, shared), of_group in zip(drawn_for, factor.split(list(sizes)), strict=True):
            size = own.shape[1]
            pair = pairs.unsqueeze(1)
            handed_on = own[pair // size, (torch.arange(size) + pair) % size]
            parts.append((handed_on, shared[pairs] @ of_group.T))
        own, shared = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        drawn = own * log_scale.exp() + shared
        yield torch.stack([drawn, -drawn], dim=1).flatten(0, 1)[: n_samples - 2 * int(pairs[0])]


@torch.no_grad()
def _weigh_control(values: Tensor, control: Tensor) -> Tensor:
    """Return how much of a control variate to take away, from samples of both, shape (n_groups,)."""
    centred = control - control.mean(0)
    return (centred * values).mean(0) / centred.square().mean(0).clamp_min(1e-300)


def _count_at_once(n_channels: int) -> int:
    return max(2, N_NUMBERS_AT_ONCE // n_channels)
