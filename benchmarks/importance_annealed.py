"""Posteriors over switches whose divergence from the prior counts more and more: does that help?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from importance_methods import SNR, Variant
from torch import Tensor

from dirprune.importance import ScoreCache, ScoringContext, Selection, create, keep_best
from dirprune.importance.simplex.family import SimplexFamily
from dirprune.importance.simplex.fitting import fit_
from dirprune.importance.simplex.scorers import SimplexSwitches
from dirprune.layers import copy_for_evaluation


@dataclass(frozen=True)
class AnnealedVariant(Variant):
    """Channels by the mean, or the mean over the standard deviation, of a posterior that is fitted annealed.

    KL(q || prior) counts for nothing at first, and in full from half of the steps on (Bowman et al. 2016,
    "Generating Sentences from a Continuous Space").
    """

    _known: dict[tuple[int, int], dict[str, Tensor]] = field(default_factory=dict, compare=False)

    def select(
        self, context: ScoringContext, architecture: Mapping[str, int], cache: ScoreCache | None = None
    ) -> Selection:
        """Return the kept channels of every group; the fit is kept for the next architecture."""
        began = time.perf_counter()
        key = (id(context.network), context.seed)
        was_known = key in self._known
        if not was_known:
            self._known[key] = self._fit(context)
        kept = keep_best(self._known[key], architecture)
        return Selection(kept, self._known[key], was_known, time.perf_counter() - began)

    def _fit(self, context: ScoringContext) -> dict[str, Tensor]:
        method = create(self.method, self.options)
        assert isinstance(method, SimplexSwitches)
        posterior = method.start(context.grouping.n_channels, context.seed)
        anneal_(posterior, method.options.steps // 2)
        network = copy_for_evaluation(context.network).to(context.device).requires_grad_(False)
        fit_(posterior, dataclasses.replace(context, network=network), method.options)
        is_mean = method.options.statistic == "mean"
        found = posterior.mean() if is_mean else posterior.signal_to_noise()
        return {name: part.detach() for name, part in posterior.split(found).items()}


def anneal_(posterior: SimplexFamily, n_steps: int) -> None:
    """Let the posterior's KL grow linearly from nothing to itself over its first calls, in place."""
    whole, n_calls = posterior.kl, 0

    def grow(rng: Any = None) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return min(1.0, (n_calls - 1) / n_steps) * whole(rng)

    posterior.kl = grow  # type: ignore[method-assign]


ANNEALED = (
    AnnealedVariant("dirichlet, annealed", "dirichlet"),
    AnnealedVariant("logistic-normal, snr, annealed", "logistic-normal", SNR),
)


def find_annealed(chosen: str | None) -> list[Variant]:
    """Return those of `ANNEALED` that are named by their labels, separated by semicolons."""
    wanted = set() if chosen is None else {name.strip() for name in chosen.split(";")}
    return [variant for variant in ANNEALED if variant.label in wanted]
