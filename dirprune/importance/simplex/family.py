"""What every family of distributions on the simplex offers, over all channel groups side by side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor


def split_channels(flat: Tensor, n_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """Split the last axis of a flat tensor into one tensor for each group."""
    return dict(zip(n_channels, flat.split(list(n_channels.values()), dim=-1), strict=True))


class SimplexFamily(ABC):
    """One distribution q over switches for each channel group, kept side by side in flat tensors.

    The switches of a group are positive and sum to 1. Groups are independent of one another, unless all
    channels of a network are given as one group. All families
    have the same prior, the symmetric Dirichlet(prior_concentration), and begin at it or as near as they can.
    Everything is float64 on the CPU: it is small, and draws are the same whatever the network runs on.

    Args:
        n_channels: Channels of each group; n_total in all.
        prior_concentration: Of each channel; > 0.
    """

    def __init__(self, n_channels: Mapping[str, int], prior_concentration: float) -> None:
        self.n_channels = dict(n_channels)
        sizes = torch.tensor(list(self.n_channels.values()), dtype=torch.int64)
        self.group_of = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        self.n_beside = sizes[self.group_of].double()
        self.prior = torch.full((len(self.group_of),), prior_concentration, dtype=torch.float64)

    @property
    @abstractmethod
    def parameters(self) -> list[Tensor]:
        """What is fitted: leaf tensors without constraints."""

    @abstractmethod
    def sample(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw switches, differentiably in the parameters; shape (n_samples, n_total)."""

    @abstractmethod
    def mean(self) -> Tensor:
        """Return E[switch], shape (n_total,); sums to 1 in each group."""

    @abstractmethod
    def covariance(self, group: str) -> Tensor:
        """Return the covariance of one group's switches, shape (n_channels, n_channels); rows sum to 0."""

    @abstractmethod
    def kl(self, rng: torch.Generator | None = None) -> Tensor:
        """Return the sum over groups of KL(q || prior) on the simplex in nats, a scalar, differentiably.

        Args:
            rng: For the families whose KL is estimated from samples; None takes a generator of their own.
        """

    def variance(self) -> Tensor:
        """Return the variance of every switch, shape (n_total,)."""
        diagonals = [self.covariance(name).diagonal() for name in self.n_channels]
        return torch.cat(diagonals) if diagonals else self.prior

    def signal_to_noise(self) -> Tensor:
        """Return mean over standard deviation, shape (n_total,); the mean where nothing varies."""
        mean, variance = self.mean(), self.variance()
        return torch.where(variance > 0, mean / variance.clamp_min(1e-300).sqrt(), mean)

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Split the last axis of a flat tensor into one tensor for each group."""
        return split_channels(flat, self.n_channels)

    def _totals(self, flat: Tensor) -> Tensor:
        """Sum over the channels of each group: (..., n_total) to (..., n_groups)."""
        zeros = flat.new_zeros(*flat.shape[:-1], len(self.n_channels))
        return zeros.index_add(-1, self.group_of, flat)

    def _normalised(self, flat: Tensor) -> Tensor:
        totals = self._totals(flat).clamp_min(torch.finfo(flat.dtype).tiny)
        return flat / totals[..., self.group_of]


def dirichlet_covariance(mean: Tensor, total: float | Tensor) -> Tensor:
    """Return the covariance (diag(m) - m m^T) / (a0 + 1) of a Dirichlet.

    Args:
        mean: m, shape (n_channels,), of sum 1.
        total: a0, the sum of its concentrations.
    """
    return (mean.diag() - mean.outer(mean)) / (total + 1)
