"""Importance from a posterior on the simplex over each group's channels, in three families."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from dirprune.importance.base import Scorer, Scores, ScoringContext
from dirprune.importance.registry import register
from dirprune.importance.simplex.dirichlet import DirichletPosterior
from dirprune.importance.simplex.family import SimplexFamily, split_channels
from dirprune.importance.simplex.fitting import SimplexOptions, check_choice, check_least, fit_
from dirprune.importance.simplex.generalized_dirichlet import GeneralizedDirichletPosterior, draw_orders
from dirprune.importance.simplex.logistic_normal import LogisticNormalPosterior

ESTIMATORS = ("integral", "point")


@dataclass(frozen=True)
class DirichletOptions(SimplexOptions):
    """Options of `DirichletSwitches`, beside those that all families share.

    Attributes:
        estimator: "point" (the posterior's mean goes through the network) or "integral" (samples do).
    """

    estimator: str = "integral"

    def __post_init__(self) -> None:
        check_choice("estimator", self.estimator, ESTIMATORS)
        super().__post_init__()

    @property
    def is_sampled(self) -> bool:
        """Whether samples of the switches go through the network, else their mean."""
        return self.estimator == "integral"


@dataclass(frozen=True)
class GeneralizedDirichletOptions(SimplexOptions):
    """Options of `GeneralizedDirichletSwitches`, beside those that all families share.

    Attributes:
        n_orders: Random orders of the sticks that are fitted side by side and averaged over; >= 1. With one
            order, scores depend on it: accuracies after pruning differ by several points from order to order
            and are lower than with eight.
    """

    n_orders: int = 8

    def __post_init__(self) -> None:
        check_least("n_orders", self.n_orders, 1)
        super().__post_init__()


@dataclass(frozen=True)
class LogisticNormalOptions(SimplexOptions):
    """Options of `LogisticNormalSwitches`, beside those that all families share.

    Attributes:
        rank: Of the part of the Gaussian's covariance that channels share; >= 0, 0 is diagonal.
        steps: Optimiser steps; >= 0. More by default than of the other families, as there is more to fit and
            its gradients are noisier.
    """

    steps: int = 200
    rank: int = 2

    def __post_init__(self) -> None:
        check_least("rank", self.rank, 0)
        super().__post_init__()


class SimplexSwitches(Scorer):
    """Scores each channel by its posterior on the simplex (Adamczewski and Park 2021).

    A channel is multiplied by n * switch where it enters its consumers, n being the channels of its simplex,
    so that the prior's mean, 1 / n each, leaves the network as it is and zero is what pruning does. The
    weights stay frozen and batch norm in evaluation mode; only the posterior is fitted, all groups together,
    to minimise

        E_q[loss per example] + KL(q || prior) / n_examples.
    """

    Options: ClassVar[type] = SimplexOptions

    @abstractmethod
    def start(self, n_channels: Mapping[str, int], seed: int) -> SimplexFamily:
        """Return the posterior before it is fitted.

        Args:
            n_channels: Channels of each simplex.
            seed: Of all draws.
        """

    def fit(self, context: ScoringContext, signs: Tensor | None = None) -> SimplexFamily:
        """Return the fitted posterior over the switches of all groups, of which there must be one.

        Args:
            signs: Where factors are mirrored, shape (n_examples, n_total); see `compute_loss`.
        """
        n_channels = context.grouping.n_channels
        if self.options.simplex == "network":
            n_channels = {"network": sum(n_channels.values())}
        posterior = self.start(n_channels, context.seed)
        fit_(posterior, context, self.options, signs)
        return posterior

    @torch.no_grad()
    def score(self, context: ScoringContext) -> Scores:
        """Return the posterior's statistic > 0, each of shape (n_channels,); means sum to 1 in a simplex."""
        if not context.grouping.groups:
            return {}
        posterior = self.fit(context)
        is_mean = self.options.statistic == "mean"
        scores = posterior.mean() if is_mean else posterior.signal_to_noise()
        return split_channels(scores, context.grouping.n_channels)


@register(
    "dirichlet",
    "the mean of a Dirichlet posterior over switches on the channels, all groups fitted jointly",
    paper="Adamczewski and Park 2021, Dirichlet Pruning for Neural Network Compression, arXiv:2011.05985",
    cost="120 steps of 128 images, forward and backward, for all groups at once",
    needs_data=True,
    needs_gradients=True,
    stochastic=True,
)
class DirichletSwitches(SimplexSwitches):
    """Scores channels by a Dirichlet; mean and snr give the same order, snr^2 = m (a0 + 1) / (1 - m)."""

    Options = DirichletOptions

    def start(self, n_channels: Mapping[str, int], seed: int) -> DirichletPosterior:
        """Return the prior itself."""
        return DirichletPosterior(n_channels, self.options.prior_concentration)


@register(
    "generalized-dirichlet",
    "a generalized Dirichlet posterior over switches on the channels, averaged over orders of its sticks",
    paper="Connor and Mosimann 1969, Concepts of Independence for Proportions, JASA 64",
    cost="120 steps of 128 images, forward and backward, for all groups at once",
    needs_data=True,
    needs_gradients=True,
    stochastic=True,
)
class GeneralizedDirichletSwitches(SimplexSwitches):
    """Scores channels by generalized Dirichlets over random orders of the sticks."""

    Options = GeneralizedDirichletOptions

    def start(self, n_channels: Mapping[str, int], seed: int) -> GeneralizedDirichletPosterior:
        """Return the prior itself, with orders drawn from the seed."""
        rng = torch.Generator().manual_seed(seed)
        orders = draw_orders(n_channels, self.options.n_orders, rng)
        return GeneralizedDirichletPosterior(n_channels, self.options.prior_concentration, orders)


@register(
    "logistic-normal",
    "a logistic-normal posterior over switches on the channels, in which channels may go together",
    paper="Aitchison and Shen 1980, Logistic-Normal Distributions: Some Properties and Uses, Biometrika 67",
    cost="200 steps of 128 images, forward and backward, for all groups at once",
    needs_data=True,
    needs_gradients=True,
    stochastic=True,
)
class LogisticNormalSwitches(SimplexSwitches):
    """Scores channels by the softmax of a Gaussian with low-rank plus diagonal covariance."""

    Options = LogisticNormalOptions

    def start(self, n_channels: Mapping[str, int], seed: int) -> LogisticNormalPosterior:
        """Return the logistic normal that is near the prior."""
        options = self.options
        return LogisticNormalPosterior(n_channels, options.prior_concentration, options.rank, seed)
