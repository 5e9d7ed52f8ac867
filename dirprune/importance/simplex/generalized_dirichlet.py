"""The generalized Dirichlet of Connor and Mosimann: sticks broken by Betas, in several orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dirprune.importance.simplex.family import SimplexFamily


class GeneralizedDirichletPosterior(SimplexFamily):
    """A uniform mixture of generalized Dirichlets, one for each of some orders of the channels.

    In one order, with channels 1..n as the order has them, the switches are what a stick of length 1 loses:

        s_i = v_i (1 - v_1) ... (1 - v_{i-1}),  v_i ~ Beta(a_i, b_i) independent for i < n,  v_n = 1

    (Connor and Mosimann 1969). With b_i = a_{i+1} + ... + a_n this is the Dirichlet(a), whatever the order;
    else it depends on the order: the first channel is negatively correlated with every other, later ones
    may be positively so. That is why several orders are taken and averaged over.

    Args:
        n_channels: Channels of each group; n_total in all.
        prior_concentration: Of each channel; > 0.
        orders: For each order, what place each channel of the flat tensors comes from: shape
            (n_orders, n_total), each row a permutation within the groups.
    """

    def __init__(self, n_channels: Mapping[str, int], prior_concentration: float, orders: Tensor) -> None:
        super().__init__(n_channels, prior_concentration)
        self.orders = orders
        sizes = list(self.n_channels.values())
        after = torch.cat([torch.arange(size - 1, -1, -1) for size in sizes] or [torch.empty(0)])
        self.is_last = after == 0
        self.prior_rest = torch.where(self.is_last, 1.0, self.prior * after)
        self.places = orders.argsort(dim=1)
        self.logits = torch.stack([self.prior.log(), self.prior_rest.log()])
        self.logits = self.logits.unsqueeze(1).repeat(1, len(orders), 1).requires_grad_()

    @property
    def parameters(self) -> list[Tensor]:
        """The logarithms of a and b in stick order, shape (2, n_orders, n_total); a last stick's are idle."""
        return [self.logits]

    def sample(self, n_samples: int, rng: torch.Generator) -> Tensor:
        """Draw switches, their orders in turn, differentiably; shape (n_samples, n_total).

        A Beta is a Gamma over the sum of two, whose derivatives are the implicit ones (Figurnov et al. 2018).
        """
        n_orders = len(self.orders)
        # With fewer samples than orders each call begins with another order, so that all are fitted.
        first = int(torch.randint(n_orders, (), generator=rng)) if n_samples < n_orders else 0
        dealt = (torch.arange(n_samples) + first) % n_orders
        gammas = torch._standard_gamma(self.logits.exp()[:, dealt], generator=rng).clamp_min(1e-300)
        log_taken, log_left = (gammas / gammas.sum(0)).clamp_min(1e-300).log()
        log_taken = torch.where(self.is_last, 0.0, log_taken)
        return (log_taken + self._log_before(log_left)).exp().gather(1, self.places[dealt])

    def mean(self) -> Tensor:
        """Return E[s_i] = E[v_i] prod_{j<i} E[1 - v_j], averaged over the orders; shape (n_total,)."""
        a, b = self.logits.exp()
        taken = torch.where(self.is_last, 1.0, a / (a + b))
        means = taken * self._log_before((b / (a + b)).log()).exp()
        return means.gather(1, self.places).mean(0)

    def covariance(self, group: str) -> Tensor:
        """Return the mixture's covariance E[s s^T] - E[s] E[s]^T, shape (n_channels, n_channels).

        In one order E[s_i s_j] = E[v_i (1 - v_i)] prod_{k<i} E[(1 - v_k)^2] prod_{i<k<j} E[1 - v_k] E[v_j]
        for i < j, and E[s_i^2] = E[v_i^2] prod_{k<i} E[(1 - v_k)^2].
        """
        places = self.split(self.places)[group]
        places = places - places.min()
        mean = self.split(self.mean())[group]
        moments = torch.zeros(len(mean), len(mean), dtype=torch.float64)
        for a, b, place in zip(*self.split(self.logits.exp())[group], places, strict=True):
            moments = moments + _second_moments(a, b)[place][:, place]
        return moments / len(places) - mean.outer(mean)

    def kl(self, rng: torch.Generator | None = None) -> Tensor:
        """Return the mean over orders of sum_i KL(Beta(a_i, b_i) || the prior's v_i), in closed form.

        The symmetric Dirichlet(p) has v_i ~ Beta(p, (n - i) p) in every order. The mean over orders is the
        KL of switches and order together; that of the switches alone is at most as large, and equal for one
        order. Estimated from 64 samples and fitted with in its place, it lets the orders drift apart: of
        LeNet-5 on the digits, 24 random architectures right after pruning were 3 to 5 points less accurate
        with each of three seeds, for 1.3 to 1.6 times the time.
        """
        a, b = self.logits.exp()
        p, r = self.prior, self.prior_rest
        kl = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        kl = kl - torch.lgamma(p + r) + torch.lgamma(p) + torch.lgamma(r)
        both = torch.digamma(a + b)
        kl = kl + (a - p) * (torch.digamma(a) - both) + (b - r) * (torch.digamma(b) - both)
        return torch.where(self.is_last, 0.0, kl).sum() / len(self.orders)

    def _log_before(self, log_left: Tensor) -> Tensor:
        """Sum over the sticks before each one in its group; the last axis is flat, in stick order."""
        log_left = torch.where(self.is_last, 0.0, log_left)
        parts = self.split(log_left).values()
        return torch.cat([part.cumsum(-1) - part for part in parts], dim=-1) if parts else log_left


def draw_orders(n_channels: Mapping[str, int], n_orders: int, rng: torch.Generator) -> Tensor:
    """Return random orders of the channels, each followed by its reverse; shape (n_orders, n_total)."""
    orders: list[Tensor] = []
    while len(orders) < n_orders:
        parts = [torch.randperm(size, generator=rng) for size in n_channels.values()]
        orders += [join_orders(parts), join_orders([part.flip(0) for part in parts])]
    return torch.stack(orders[:n_orders])


def join_orders(parts: Sequence[Tensor]) -> Tensor:
    """Return orders of single groups, each of shape (n_channels,), as one of shape (n_total,)."""
    starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0)
    shifted = [part + start for part, start in zip(parts, starts, strict=False)]
    return torch.cat(shifted) if shifted else torch.empty(0, dtype=torch.int64)


def _second_moments(a: Tensor, b: Tensor) -> Tensor:
    """Return E[s s^T] of one group in stick order, from its Betas; all of shape (n_channels, ...)."""
    n_channels = len(a)
    total = a + b
    taken, left = a / total, b / total
    product = taken * b / (total + 1)
    taken_squared, left_squared = taken * (a + 1) / (total + 1), left * (b + 1) / (total + 1)
    one, zero = torch.ones_like(a), torch.zeros_like(a)
    is_last = torch.arange(n_channels) == n_channels - 1
    taken, taken_squared = torch.where(is_last, one, taken), torch.where(is_last, one, taken_squared)
    product = torch.where(is_last, zero, product)
    log_left = torch.where(is_last, zero, left.log())
    log_before = torch.where(is_last, zero, left_squared.log()).cumsum(0).roll(1)
    log_before = torch.where(torch.arange(n_channels) == 0, zero, log_before)
    reached = log_left.cumsum(0)
    between = (reached - log_left).unsqueeze(0) - reached.unsqueeze(1)  # sum of log_left over i < k < j
    upper = ((log_before.unsqueeze(1) + between).triu(1).exp() * product.unsqueeze(1) * taken).triu(1)
    return upper + upper.T + (taken_squared * log_before.exp()).diag()
