"""Which channels go together: posterior covariances of switches, beside those that a Dirichlet would have.

On a simplex every row of a covariance sums to zero, so that the average pair is negative, and a Dirichlet
makes every pair negative. What a richer family learnt about pairs is therefore its *excess*: its covariance
less that of the Dirichlet with the same means and the same total variance (trace). The rows of an excess sum
to zero too. Channels that only help together have a positive excess, substitutes for one another a
negative one. So have channels that have nothing to do with one another, by how much each counts on its own:
what seeds agree about says something of pairs only beside the null of `simplex.null`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.identity import digest
from dirprune.importance.base import Scores, ScoringContext, Selector
from dirprune.importance.cache import ScoreCache, score_key
from dirprune.importance.simplex.family import dirichlet_covariance
from dirprune.importance.simplex.null import LEAST_SAMPLES, NULL_VERSION, draw_signs, make_rng
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
class Null:
    """What the figures of `Agreement` are without interactions, in each draw; see `simplex.null`.

    Attributes:
        spearman: As there.
        n_confirmed: As there.
    """

    spearman: tuple[float | None, ...]
    n_confirmed: tuple[int, ...]


@dataclass(frozen=True)
class Agreement:
    """How far seeds agree about the pairs of one group, which says something of pairs only beside the null.

    Attributes:
        spearman: Rank correlation of the excess of all pairs, averaged over pairs of seeds; None with one
            seed, fewer than three pairs, or where no pair differs from the Dirichlet.
        n_pairs: Pairs of channels.
        n_positive: For each seed, pairs whose correlation is above `LEAST_CORRELATION`.
        n_confirmed: Pairs for which every seed says so.
        null: The same without interactions; None where it was not drawn.
    """

    spearman: float | None
    n_pairs: int
    n_positive: tuple[int, ...]
    n_confirmed: int
    null: Null | None = None


@dataclass(frozen=True)
class GroupCovariances:
    """Posterior means and covariances of one group's switches.

    Attributes:
        means: Shape (n_seeds, n_channels).
        covariances: Shape (n_seeds, n_channels, n_channels); every row sums to 0.
        null: The same without interactions, one for each draw, each without a null of its own.
    """

    means: Tensor
    covariances: Tensor
    null: tuple[GroupCovariances, ...] = ()

    def __post_init__(self) -> None:
        _check_finite((self.means, self.covariances))

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
        """Return how far the seeds agree, and how far without interactions."""
        relative = self.relative(self.covariances)
        first, second = _upper(relative[0])
        is_positive = relative[:, first, second] > LEAST_CORRELATION
        excess = self.relative(self.excess())[:, first, second]
        found = [_spearman(left, right) for left, right in itertools.combinations(excess, 2)]
        known = [value for value in found if value is not None]
        draws = [draw.agreement() for draw in self.null]
        null = Null(tuple(draw.spearman for draw in draws), tuple(draw.n_confirmed for draw in draws))
        return Agreement(
            sum(known) / len(known) if known else None,
            len(first),
            tuple(is_positive.sum(1).tolist()),
            int(is_positive.all(0).sum()),
            null if draws else None,
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
    method: Selector,
    context: ScoringContext,
    seeds: Sequence[int],
    cache: ScoreCache | None = None,
    n_draws: int = 0,
) -> dict[str, GroupCovariances]:
    """Fit a posterior over switches with each seed and return the covariances of every group.

    Args:
        method: One of the simplex families, with samples going through the network.
        context: Its own seed is not used.
        seeds: At least one, all different.
        cache: Where the posterior of each seed is kept as soon as it is fitted, and found again.
        n_draws: Of the null; >= 0. Each fits another posterior with every seed, with signs that those of one
            draw share, as seeds share the images.
    Raises:
        ImportanceError: If the method has no posterior, or is fitted at its mean, where the loss says nothing
            of covariances, seeds are missing or given twice, or samples are too few for the null.
    """
    checked = check_has_covariances(method)
    options = checked.options
    if n_draws and (fewest := min(options.n_samples, options.batch_size)) < LEAST_SAMPLES:
        name = "n_samples" if fewest == options.n_samples else "batch_size"
        raise ImportanceError(
            f"the null needs {name} of at least {LEAST_SAMPLES}, got {fewest}; "
            "take more, or no draws of the null"
        )
    if not seeds or len(set(seeds)) < len(seeds):
        raise ImportanceError(f"seeds must be different and at least one, got {list(seeds)}; try 0, 1, 2")
    if len(context.calibration) == 0:
        raise ImportanceError("covariances need calibration examples, got none; enlarge the training set")
    if not context.grouping.groups:
        return {}
    network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
    contexts = [dataclasses.replace(context, network=network, seed=seed) for seed in seeds]
    real = _fit_seeds(checked, contexts, cache)
    null = [_fit_seeds(checked, contexts, cache, draw) for draw in range(n_draws)]
    return {
        name: dataclasses.replace(group, null=tuple(draw[name] for draw in null))
        for name, group in real.items()
    }


def _fit_seeds(
    method: SimplexSwitches,
    contexts: Sequence[ScoringContext],
    cache: ScoreCache | None,
    draw: int | None = None,
) -> dict[str, GroupCovariances]:
    """Return the covariances of posteriors fitted in several contexts; of one draw of the null, if given."""
    signs = None
    if draw is not None:
        shape = (len(contexts[0].calibration), sum(contexts[0].grouping.n_channels.values()))
        signs = draw_signs(shape, make_rng(draw))
    found = []
    for context in contexts:
        key = None if cache is None else score_key(method, context)
        of_draw = key if draw is None else [key, "null", NULL_VERSION, draw]
        found.append(find_moments(cache, of_draw, partial(_fit_moments, method, context, signs)))

    def stack(name: str) -> Tensor:
        return torch.stack([moments[name] for moments in found])

    mean_of, covariance_of = KINDS
    return {
        name: GroupCovariances(stack(mean_of + name), stack(covariance_of + name))
        for name in contexts[0].grouping.names
    }


def _fit_moments(method: SimplexSwitches, context: ScoringContext, signs: Tensor | None) -> Scores:
    """Return the means and covariances of a fitted posterior, by `KINDS` and group."""
    posterior = method.fit(context, signs)
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
    Raises:
        ImportanceError: If what is computed is not finite; it is not kept.
    """

    def compute_finite() -> Scores:
        found = compute()
        _check_finite(found.values())
        return found

    if cache is None:
        return compute_finite()
    return cache.get_or_compute(digest({"moments_version": MOMENTS_VERSION, "of": key}), compute_finite)[0]


def _check_finite(moments: Iterable[Tensor]) -> None:
    if not all(tensor.isfinite().all() for tensor in moments):
        raise ImportanceError(
            "covariances must be finite, got NaN or infinity; look for NaN in weights and calibration inputs"
        )


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
    from scipy.stats import spearmanr  # slow to import, as for all that lists methods

    return float(spearmanr(left.numpy(), right.numpy()).statistic)
