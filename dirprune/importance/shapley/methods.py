"""The registered methods: each estimator on the coalition values of each group of a network."""

from __future__ import annotations

import contextlib
import logging
from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch

from dirprune.errors import ImportanceError
from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.coalitions import Opener
from dirprune.importance.registry import register
from dirprune.importance.shapley.borders_first import count_fitted, estimate_by_borders_first
from dirprune.importance.shapley.estimate import (
    Array,
    BudgetError,
    Coalitions,
    Estimate,
    Value,
    count_coalitions,
)
from dirprune.importance.shapley.exact import compute_exact
from dirprune.importance.shapley.kernel import count_least, estimate_by_kernel
from dirprune.importance.shapley.ols import estimate_by_ols
from dirprune.importance.shapley.options import (
    FixedOptions,
    PartialOptions,
    SampledOptions,
    ShapOptions,
    ValueOptions,
)
from dirprune.importance.shapley.partial import estimate_by_sizes, list_sizes
from dirprune.importance.shapley.permutation import estimate_by_permutations
from dirprune.importance.shapley.settling import (
    default_evaluations,
    estimate_until_settled,
    largest_evaluations,
)
from dirprune.importance.shapley.surrogate import count_bytes
from dirprune.importance.shapley.with_shap import estimate_with_shap

logger = logging.getLogger(__name__)

DEFAULT_COST = "4 n + 100 coalitions a group by default (beyond 451 channels 2 n + 1,002)"

TAKES_MORE = "shapley on %s: its regression takes about %d MiB, %d are allowed; try fewer evaluations"


class _Fits(Exception):  # noqa: N818  (no error)
    """The options fit a group: its estimator has asked for a value."""


def _raise_fits(coalitions: Coalitions) -> Array:
    raise _Fits


class ShapleyScorer(Scorer):
    """Scores each channel by its Shapley value in its group, all other groups being whole.

    The value of a channel is what it adds to the coalition of those before it, averaged over all orders of
    the group's channels.
    """

    Options: ClassVar[type] = ValueOptions
    is_kept_in_parts = True
    estimates: dict[str, Estimate] | None = None
    """What the last scoring found of each group, with intervals; None before."""

    def score(self, context: ScoringContext) -> Scores:
        """Return Shapley values, each of shape (n_channels,), in nats of loss or parts of accuracy."""
        self.estimates = self.estimate(context)
        return {name: torch.from_numpy(found.values) for name, found in self.estimates.items()}

    def estimate(self, context: ScoringContext) -> dict[str, Estimate]:
        """Return the estimate of every group, with its intervals where the method has them.

        Raises:
            ImportanceError: If the options do not fit a group; the message names every such group. If there
                is not enough memory for what an estimator keeps of its coalitions.
        """
        self._check_all(context.grouping.n_channels)
        opener = Opener(context, value=self.options.value)
        estimates = {}
        for group in context.grouping.groups:
            try:
                estimates[group.name] = self._estimate_group(opener, group.name)
            except MemoryError as error:
                raise ImportanceError(
                    f"Shapley values of {group.name}: expected memory for an estimate of "
                    f"{group.n_channels:,} channels, got out of memory; free some, or try fewer evaluations"
                ) from error
        return estimates

    def _estimate_group(self, opener: Opener, group: str) -> Estimate:
        """Return the estimate of one group."""
        values = opener.open(group)
        return self._estimate(values.evaluate, values.n_channels, opener.context.seed)

    def _check_all(self, n_channels: Mapping[str, int]) -> None:
        """Refuse groups that the options do not fit, all of them, before the first one is worked on."""
        refused: dict[str, ImportanceError] = {}
        for name, n in n_channels.items():
            try:
                self._check(n)
            except ImportanceError as error:
                refused[name] = error
        if refused:
            first, *others = refused
            least = max(
                (error.least for error in refused.values() if isinstance(error, BudgetError)), default=0
            )
            enough = f"; {least} evaluations fit every group" if least else ""
            also = f" (nor do the options fit {', '.join(others)}{enough})" if others else ""
            raise ImportanceError(f"{first}: {refused[first]}{also}") from refused[first]

    def _check(self, n_channels: int) -> None:
        """Refuse a group that the options do not fit, which estimators do before they ask for a value."""
        with contextlib.suppress(_Fits):
            self._estimate(_raise_fits, n_channels, 0)

    @abstractmethod
    def _estimate(self, value: Value, n_channels: int, seed: int) -> Estimate:
        """Return the estimate from a value function."""


class CountedScorer(ShapleyScorer):
    """Evaluates so many coalitions, block by block; progress is told of all, not of each block."""

    def _estimate_group(self, opener: Opener, group: str) -> Estimate:
        """Return the values of one group."""
        context = opener.context
        n_channels = context.grouping[group].n_channels
        tell, n_before, n_all = context.progress, 0, self._count(n_channels)

        def tell_of_all(what: str, n_done: int, n_total: int) -> None:
            if tell is not None:
                tell(what, min(n_before + n_done, n_all), n_all)

        values = opener.open(group, progress=tell_of_all)

        def value(coalitions: Coalitions) -> Array:
            nonlocal n_before
            found = values.evaluate(coalitions)
            n_before += len(coalitions)
            return found

        return self._estimate(value, n_channels, context.seed)

    @abstractmethod
    def _count(self, n_channels: int) -> int:
        """Return how many coalitions of a group are evaluated in all."""


class SampledScorer(ShapleyScorer):
    """Runs an estimator with the budget that the options give."""

    Options: ClassVar[type] = SampledOptions

    def _estimate(self, value: Value, n_channels: int, seed: int) -> Estimate:
        n_evaluations = self.options.evaluations
        if n_evaluations == "auto":
            least, cut = self._count_least(n_channels), self.options.cut
            return estimate_until_settled(self._sample, value, n_channels, seed, cut, least)
        if n_evaluations == "default":
            n_evaluations = default_evaluations(n_channels)
        return self._sample(value, n_channels, n_evaluations, seed)

    def _check(self, n_channels: int) -> None:
        """Say also which words the method accepts in place of a number."""
        try:
            super()._check(n_channels)
        except BudgetError as error:
            words = " or ".join(self.options.words)
            raise BudgetError(f"{error}; try evaluations={words}", error.least) from error

    @abstractmethod
    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        """Return the estimate from a budget."""

    def _count_least(self, n_channels: int) -> int:
        """Return from which budget on "auto" looks, beside the usual one."""
        return 0


@register(
    "shapley",
    "Shapley values: borders first, then a regression; its 95% intervals held at least 90% of known values",
    paper="Shapley 1953, A Value for n-Person Games (the value; the estimator is dirprune's own)",
    version=7,
    cost=DEFAULT_COST,
    needs_data=True,
    needs_gradients=False,
    stochastic=True,
)
class Shapley(SampledScorer):
    """Shapley values by `estimate_by_borders_first`.

    Its regression takes memory for a matrix of n_evaluations^2 numbers (2,500, or all borders where these are
    more), for which it has no smaller form: where that is more than is allowed, it says so.
    """

    def _estimate_group(self, opener: Opener, group: str) -> Estimate:
        """Return the estimate of one group."""
        context, n_channels = opener.context, opener.context.grouping[group].n_channels
        n_evaluations = self.options.evaluations
        if n_evaluations == "auto":
            n_evaluations = largest_evaluations(n_channels)
        elif isinstance(n_evaluations, str):
            n_evaluations = default_evaluations(n_channels)
        n_bytes = count_bytes(count_fitted(n_evaluations, n_channels), n_channels)
        if n_bytes > context.memory_mb << 20 and TAKES_MORE not in context.said:
            logger.warning(TAKES_MORE, group, n_bytes >> 20, context.memory_mb)
            context.said.add(TAKES_MORE)
        return super()._estimate_group(opener, group)

    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return estimate_by_borders_first(value, n_channels, n_evaluations, seed)


@register(
    "shapley-exact",
    "exact Shapley values, for groups of at most 20 channels",
    paper="Shapley 1953, A Value for n-Person Games",
    cost="2^n coalitions a group",
    needs_data=True,
    needs_gradients=False,
    stochastic=False,
)
class ShapleyExact(CountedScorer):
    """Exact Shapley values by `compute_exact`."""

    def _count(self, n_channels: int) -> int:
        return count_coalitions(n_channels)

    def _estimate(self, value: Value, n_channels: int, seed: int) -> Estimate:
        return compute_exact(value, n_channels)


@register(
    "shapley-permutation",
    "Shapley values from random orders and their reverses; intervals know only changes that were seen",
    paper="Castro, Gomez and Tejada 2009; Mitchell et al. 2022, arXiv:2104.12199",
    cost=DEFAULT_COST,
    needs_data=True,
    needs_gradients=False,
    stochastic=True,
    version=2,
)
class ShapleyPermutation(SampledScorer):
    """Shapley values by `estimate_by_permutations`."""

    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return estimate_by_permutations(value, n_channels, n_evaluations, seed)


@register(
    "shapley-kernel",
    "KernelSHAP with pairs and the efficiency constraint",
    paper="Lundberg and Lee 2017, arXiv:1705.07874; Covert and Lee 2021, arXiv:2012.01536",
    version=3,
    cost=DEFAULT_COST,
    needs_data=True,
    needs_gradients=False,
    stochastic=True,
)
class ShapleyKernel(SampledScorer):
    """Shapley values by `estimate_by_kernel`."""

    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return estimate_by_kernel(value, n_channels, n_evaluations, seed)

    def _count_least(self, n_channels: int) -> int:
        """Return what determines the fit."""
        return count_least(n_channels)


@register(
    "shapley-partial",
    "Shapley values from all coalitions of the k smallest and largest sizes",
    paper="Adamczewski and Park 2021, arXiv:2011.05985 (its code); weights of Lundberg and Lee 2017",
    cost="2 n + 2 coalitions a group for k=1, about n^2 for k=2",
    needs_data=True,
    needs_gradients=False,
    stochastic=False,
)
class ShapleyPartial(CountedScorer):
    """Shapley values by `estimate_by_sizes`."""

    Options = PartialOptions

    def _count(self, n_channels: int) -> int:
        return list_sizes(n_channels, self.options.k, self.options.adding)[1]

    def _estimate(self, value: Value, n_channels: int, seed: int) -> Estimate:
        return estimate_by_sizes(value, n_channels, self.options.k, self.options.adding)


@register(
    "shapley-ols",
    "an unweighted fit to random coalitions, for comparison only",
    paper="Adamczewski and Park 2021, arXiv:2011.05985 (its code)",
    version=3,
    cost=DEFAULT_COST,
    needs_data=True,
    needs_gradients=False,
    stochastic=True,
)
class ShapleyOLS(SampledScorer):
    """The fit of `estimate_by_ols`, whose limit is not the Shapley values."""

    Options = FixedOptions

    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return estimate_by_ols(value, n_channels, n_evaluations, seed)


@register(
    "shapley-shap",
    "Shapley values by the explainers of the package shap; more evaluations begin anew",
    paper="Lundberg and Lee 2017, arXiv:1705.07874",
    cost=DEFAULT_COST,
    needs_data=True,
    needs_gradients=False,
    stochastic=True,
)
class ShapleyShap(SampledScorer):
    """Shapley values by `estimate_with_shap`."""

    Options = ShapOptions

    def _sample(self, value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return estimate_with_shap(value, n_channels, n_evaluations, seed, self.options.explainer)
