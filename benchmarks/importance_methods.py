"""Which methods the benchmarks compare, and with which options."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click
import torch
from torch import Tensor

from dirprune.errors import ImportanceError
from dirprune.importance import (
    ScoreCache,
    ScoringContext,
    Selection,
    create,
    get_method,
    list_methods,
    select_channels,
)
from dirprune.importance.simplex.laplace import compute_curvature


@dataclass(frozen=True)
class Variant:
    """A method with options.

    Attributes:
        label: In tables.
        method: Its name in the registry.
        options: Those that are not the default.
    """

    label: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_stochastic(self) -> bool:
        """Whether another seed gives other scores."""
        return get_method(self.method).stochastic

    def select(
        self, context: ScoringContext, architecture: Mapping[str, int], cache: ScoreCache | None = None
    ) -> Selection:
        """Return the kept channels, as a study gets them."""
        return select_channels(create(self.method, self.options), context, architecture, cache)


@dataclass(frozen=True)
class CurvatureVariant(Variant):
    """Channels chosen by the loss's curvature in the switches of a group: all of it, or its diagonal alone.

    With H from `compute_curvature`, removing the channels R costs about 1_R^T H 1_R / 2. Channels go one by
    one, each time the one that adds least; what pairs have in common is left out for "diagonal".
    """

    @property
    def is_stochastic(self) -> bool:
        """Whether another seed gives other channels."""
        return False

    def select(
        self, context: ScoringContext, architecture: Mapping[str, int], cache: ScoreCache | None = None
    ) -> Selection:
        """Return the kept channels of every group."""
        began = time.perf_counter()
        network = copy.deepcopy(context.network).to(context.device).eval().requires_grad_(False)
        curvature = compute_curvature(dataclasses.replace(context, network=network))
        kept = {
            name: eliminate(matrix if self.method == "full" else matrix.diagonal().diag(), architecture[name])
            for name, matrix in curvature.items()
        }
        return Selection(kept, {}, False, time.perf_counter() - began)


def eliminate(curvature: Tensor, n_kept: int) -> list[int]:
    """Return which channels stay when each time the one goes that adds least to 1_R^T H 1_R / 2.

    Args:
        curvature: H, symmetric, shape (n_channels, n_channels).
        n_kept: How many stay.
    """
    costs = curvature.diagonal() / 2
    is_kept = torch.ones(len(curvature), dtype=torch.bool)
    for _ in range(len(curvature) - n_kept):
        gone = int(costs.masked_fill(~is_kept, float("inf")).argmin())
        is_kept[gone] = False
        costs = costs + curvature[gone]
    return is_kept.nonzero().flatten().tolist()


VARIANTS = (
    Variant("random", "random"),
    Variant("magnitude L1", "magnitude", {"norm": "l1"}),
    Variant("magnitude L2", "magnitude", {"norm": "l2"}),
    Variant("bn-scale", "bn-scale"),
    Variant("fpgm", "fpgm"),
    Variant("taylor", "taylor"),
    Variant("fisher", "fisher"),
    Variant("leave-one-out", "leave-one-out"),
    Variant("dirichlet, point", "dirichlet", {"estimator": "point"}),
    Variant("dirichlet, integral", "dirichlet", {"estimator": "integral"}),
    Variant("generalized-dirichlet, mean", "generalized-dirichlet", {"statistic": "mean"}),
    Variant("generalized-dirichlet, snr", "generalized-dirichlet", {"statistic": "snr"}),
    Variant("logistic-normal, mean", "logistic-normal", {"statistic": "mean"}),
    Variant("logistic-normal, snr", "logistic-normal", {"statistic": "snr"}),
    Variant("shapley, loss", "shapley", {"value": "loss"}),
    Variant("shapley, accuracy", "shapley", {"value": "accuracy"}),
    Variant("shapley-kernel", "shapley-kernel"),
    Variant("shapley-permutation", "shapley-permutation"),
    Variant("shapley-partial", "shapley-partial"),
    Variant("shapley-ols", "shapley-ols"),
    Variant("greedy, loss", "greedy", {"value": "loss"}),
    Variant("greedy, accuracy", "greedy", {"value": "accuracy"}),
    Variant("greedy-path", "greedy-path"),
)
SNR = {"statistic": "snr"}
ONE_SIMPLEX = {"simplex": "network"}
NAMED_ONLY = (
    # Does it help if all groups share one simplex?
    Variant("dirichlet, one simplex", "dirichlet", ONE_SIMPLEX),
    Variant("logistic-normal, snr, one simplex", "logistic-normal", {**SNR, **ONE_SIMPLEX}),
    # Does it help to know which channels go together?
    CurvatureVariant("curvature, full", "full"),
    CurvatureVariant("curvature, diagonal", "diagonal"),
    # What does judging with the dense network's batch-norm statistics gain, as pruned?
    Variant("greedy, exact, as pruned", "greedy", {"search": "exact", "recalibrate": False}),
)
"""Left out unless they are named by their labels."""
LEFT_OUT = frozenset({"shapley-exact", "shapley-shap"})
"""Methods that only `shapley-error` runs: the first cannot score every group, the second is a check."""


def find_variants(chosen: str | None = None) -> list[Variant]:
    """Return the variants that can be made: those above, then every other registered method as it is.

    Args:
        chosen: Labels or names of methods, separated by semicolons; None for all.
    """
    named = {variant.method for variant in VARIANTS}
    others = [Variant(name, name) for name in list_methods() if name not in named | LEFT_OUT]
    wanted = None if chosen is None else {name.strip() for name in chosen.split(";")}
    found: list[Variant] = [variant for variant in NAMED_ONLY if wanted and variant.label in wanted]
    for variant in (*VARIANTS, *others):
        if wanted is not None and not wanted & {variant.label, variant.method}:
            continue
        if variant.method not in list_methods():
            click.echo(f"left out {variant.label}: not registered", err=True)
            continue
        try:
            create(variant.method, variant.options)
        except ImportanceError as error:
            click.echo(f"left out {variant.label}: {error}", err=True)
            continue
        found.append(variant)
    return found
