"""Which channels go together: posterior covariances of switches, beside those that a Dirichlet would have.

On a simplex every row of a covariance sums to zero, so that the average pair is negative, and a Dirichlet
makes every pair negative. What a richer family learnt about pairs is therefore its *excess*: its covariance
less that of the Dirichlet with the same means and the same total variance (trace). The rows of an excess sum
to zero too. Channels that only help together have a positive excess, substitutes for one another a
negative one.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.identity import digest
from dirprune.importance.base import Scores, ScoringContext, Selector
from dirprune.importance.cache import ScoreCache, score_key
from dirprune.importance.simplex.family import dirichlet_covariance
from dirprune.importance.simplex.scorers import SimplexSwitches

LEAST_CORRELATION = 0.02
"""More than twice the error of sampled correlations, 0.008: below it a pair counts as neither sign."""

ROUNDING = 1e-9
KINDS = ("mean of ", "covariance of ")
"""What is kept of a posterior, before the name of each group."""
MOMENTS_VERSION = 1  # raised when a posterior that is the same gives other moments


@dataclass(frozen=True)
class Pair:
    """Two channels of a group and what their switches have in common, averaged over seeds.

    Attributes:
        channels: The two, the lower one first.
        correlation: Covariance over both standard deviations, in [-1, 1].
        excess: Excess covariance over both standard deviations.
        n_positive: Seeds in which the correlation is above `LEAST_CORRELATION`.
        n_agreeing: Seeds in which the excess has the sign that it has on average.
    """

    channels: tuple[int, int]
    correlation: float
    excess: float
    n_positive: int
    n_agreeing: int


@dataclass(frozen=True)
class Agreement:
    """How far seeds agree about the pairs of one group.

    Attributes:
        spearman: Rank correlation of the excess of all pairs, averaged over pairs of seeds; None with one
            seed, fewer than three pairs, or where no pair differs from the Dirichlet.
        n_pairs: Pairs of channels.
        n_positive: For each seed, pairs whose correlation is above `LEAST_CORRELATION`.
        n_confirmed: Pairs for which every seed says so.
        n_expected: How many there would be if seeds had nothing to do with one another.
    """

    spearman: float | None
    n_pairs: int
    n_positive: tuple[int, ...]
    n_confirmed: int
    n_expected: float


@dataclass(frozen=True)
class GroupCovariances:
    """Posterior means and covariances of one group's switches.

    Attributes:
        means: Shape (n_seeds, n_channels).
        covariances: Shape (n_seeds, n_channels, n_channels); every row sums to 0.
    """

    means: Tensor
    covariances: Tensor

    def __post_init__(self) -> None:
        if not (self.means.isfinite().all() and self.covariances.isfinite().all()):
            raise ImportanceError(
                "covariances must be finite, got NaN or infinity; "
                "look for NaN in weights and calibration inputs"
            )

    def excess(self) -> Tensor:
        """Return covariances less those of the Dirichlets with the same means and traces, same shape."""
        matched = [match_dirichlet(mean, cov) for mean, cov in zip(self.means, self.covariances, strict=True)]
        return self.covariances - torch.stack(matched)

    def relative(self, matrices: Tensor) -> Tensor:
        """Divide matrices of shape (n_seeds, n_channels, n_channels) by both standard deviations."""
        deviations = self.covariances.diagonal(dim1=1, dim2=2).sqrt()
        scale = deviations.unsqueeze(2) * deviations.unsqueeze(1)
        relative = torch.where(scale > 0, matrices / scale.clamp_min(1e-300), 0.0)
        return torch.where(relative.abs() < ROUNDING, 0.0, relative)

    def pairs(self, n_shown: int) -> tuple[list[Pair], list[Pair]]:
        """Return the pairs of the highest positive and of the most negative mean excess, strongest first."""
        correlations, excess = self.relative(self.covariances), self.relative(self.excess())
        average = excess.mean(0)
        first, second = _upper(average)
        order = average[first, second].argsort(descending=True, stable=True)

        def pair(index: int) -> Pair:
            i, j = int(first[index]), int(second[index])
            return Pair(
                (i, j),
                float(correlations[:, i, j].mean()),
                float(average[i, j]),
                int((correlations[:, i, j] > LEAST_CORRELATION).sum()),
                int((excess[:, i, j].sign() == average[i, j].sign()).sum()),
            )

        above = [pair(index) for index in order[:n_shown].tolist()]
        below = [pair(index) for index in order.flip(0)[:n_shown].tolist()]
        return [p for p in above if p.excess > 0], [p for p in below if p.excess < 0]

    def agreement(self) -> Agreement:
        """Return how far the seeds agree."""
        relative = self.relative(self.covariances)
        first, second = _upper(relative[0])
        is_positive = relative[:, first, second] > LEAST_CORRELATION
        excess = self.relative(self.excess())[:, first, second]
        found = [_spearman(left, right) for left, right in itertools.combinations(excess, 2)]
        known = [value for value in found if value is not None]
        return Agreement(
            sum(known) / len(known) if known else None,
            len(first),
            tuple(is_positive.sum(1).tolist()),
            int(is_positive.all(0).sum()),
            float(is_positive.double().mean(1).prod()) * len(first) if len(first) else 0.0,
        )


def match_dirichlet(mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the covariance of the Dirichlet with a given mean and the trace of a given covariance.

    Its trace is (1 - sum m^2) / (a0 + 1), from which its total concentration a0 follows.

    Args:
        mean: m, shape (n_channels,), of sum 1.
        covariance: Shape (n_channels, n_channels).
    """
    room = 1 - mean.square().sum()
    if len(mean) == 1 or room <= 0 or covariance.trace() <= 0:
        return torch.zeros_like(covariance)
    return dirichlet_covariance(mean, room / covariance.trace() - 1)


def compute_covariances(
    method: Selector, context: ScoringContext, seeds: Sequence[int], cache: ScoreCache | None = None
) -> dict[str, GroupCovariances]:
    """Fit a posterior over switches with each seed and return the covariances of every group.

    Args:
        method: One of the simplex families, with samples going through the network.
        context: Its own seed is not used.
        seeds: At least one, all different.
        cache: Where the posterior of each seed is kept as soon as it is fitted, and found again.
    Raises:
        ImportanceError: If the method has no posterior, or is fitted at its mean, where the loss says nothing
            of covariances, or seeds are missing or given twice.
    """
    checked = check_has_covariances(method)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ImportanceError(f"seeds must be different and at least one, got {list(seeds)}; try 0, 1, 2")
    if len(context.calibration) == 0:
        raise ImportanceError("covariances need calibration examples, got none; enlarge the training set")
    if not context.grouping.groups:
        return {}
    network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
    found = []
    for seed in seeds:
        of_seed = dataclasses.replace(context, network=network, seed=seed)
        key = None if cache is None else score_key(checked, of_seed)
        found.append(find_moments(cache, key, partial(_fit_moments, checked, of_seed)))
    return {
        name: GroupCovariances(*(torch.stack([moments[kind + name] for moments in found]) for kind in KINDS))
        for name in context.grouping.names
    }


def _fit_moments(method: SimplexSwitches, context: ScoringContext) -> Scores:
    """Return the means and covariances of a fitted posterior, by `KINDS` and group."""
    posterior = method.fit(context)
    with torch.no_grad():
        means = posterior.split(posterior.mean())
        mean_of, covariance_of = KINDS
        return {mean_of + name: mean for name, mean in means.items()} | {
            covariance_of + name: posterior.covariance(name) for name in means
        }


def find_moments(cache: ScoreCache | None, key: Any, compute: Callable[[], Scores]) -> Scores:
    """Return what is computed, or was before.

    Args:
        cache: Where it is kept; None computes it.
        key: What it depends on, as plain data.
        compute: Called if it is not there.
    """
    if cache is None:
        return compute()
    return cache.get_or_compute(digest({"moments_version": MOMENTS_VERSION, "of": key}), compute)[0]


def check_has_covariances(method: Selector) -> SimplexSwitches:
    """Return a method whose posterior says something about pairs of channels.

    Raises:
        ImportanceError: If it has no posterior, its estimator puts the mean through the network, or all
            groups share one simplex.
    """
    if not isinstance(method, SimplexSwitches):
        raise ImportanceError(
            f"covariances need a posterior on the simplex, got {type(method).__name__}; "
            "try dirichlet, generalized-dirichlet or logistic-normal"
        )
    if not method.options.is_sampled:
        raise ImportanceError(
            "covariances need samples of the posterior in the network, got estimator 'point'; "
            "try estimator=integral"
        )
    if method.options.simplex != "group":
        raise ImportanceError(
            f"covariances are of each group's own simplex, got simplex {method.options.simplex!r}; "
            "try simplex=group"
        )
    return method


def _upper(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns of what lies above the diagonal of a square matrix."""
    first, second = torch.triu_indices(len(matrix), len(matrix), 1)
    return first, second


def _spearman(left: Tensor, right: Tensor) -> float | None:
    """Return the rank correlation of two tensors of shape (n_pairs,); None if either is constant.

    Equal values share the mean of their ranks: pairs of dead channels are equal by the hundred, and told
    apart by their place they would agree in it.
    """
    if len(left) < 3 or left.min() == left.max() or right.min() == right.max():
        return None
    return float(spearmanr(left.numpy(), right.numpy()).statistic)
