"""Other ways to fit a posterior over switches, which no method of dirprune takes: do they help?"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from importance_methods import Variant
from torch import Tensor

from dirprune.importance import ScoreCache, ScoringContext, Selection, create, keep_best
from dirprune.importance.simplex.dirichlet import DirichletPosterior
from dirprune.importance.simplex.family import SimplexFamily
from dirprune.importance.simplex.fitting import fit_
from dirprune.importance.simplex.logistic_normal import LogisticNormalPosterior
from dirprune.layers import copy_for_evaluation

Start = Callable[[Mapping[str, int], float, int], SimplexFamily]
"""From the channels of each group, the prior's concentration and a seed to a posterior not fitted yet."""


@dataclass(frozen=True)
class FittedVariant(Variant):
    """Channels by the mean, or the mean over the standard deviation, of a posterior that is fitted otherwise.

    Attributes:
        is_annealed: Whether KL(q || prior) counts for nothing at first, and in full from half of the steps on
            (Bowman et al. 2016, "Generating Sentences from a Continuous Space").
        is_joint: Whether there is one simplex over the channels of all groups instead of one for each.
    """

    is_annealed: bool = False
    is_joint: bool = False
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
        options: Any = create(self.method, self.options).options
        posterior = self._start(context.grouping.n_channels, options.prior_concentration, context.seed)
        if self.is_annealed:
            anneal_(posterior, options.steps // 2)
        network = copy_for_evaluation(context.network).to(context.device).requires_grad_(False)
        fit_(posterior, dataclasses.replace(context, network=network), options)
        is_mean = options.statistic == "mean"
        found = posterior.mean() if is_mean else posterior.signal_to_noise()
        return {name: part.detach() for name, part in posterior.split(found).items()}

    def _start(self, n_channels: Mapping[str, int], concentration: float, seed: int) -> SimplexFamily:
        start = FAMILIES[self.method]
        if not self.is_joint:
            return start(n_channels, concentration, seed)
        posterior = start({"all": sum(n_channels.values())}, concentration, seed)
        sizes = list(n_channels.values())
        if isinstance(posterior, LogisticNormalPosterior):  # it asks its own `split` for this
            posterior._log_sum_exp = lambda logits: logits.logsumexp(-1, keepdim=True)  # type: ignore[method-assign]
        posterior.split = lambda flat: dict(  # type: ignore[method-assign]
            zip(n_channels, flat.split(sizes, dim=-1), strict=True)
        )
        return posterior


def anneal_(posterior: SimplexFamily, n_steps: int) -> None:
    """Let the posterior's KL grow linearly from nothing to itself over its first calls, in place."""
    whole, n_calls = posterior.kl, 0

    def grow(rng: Any = None) -> Tensor:
        nonlocal n_calls
        n_calls += 1
        return min(1.0, (n_calls - 1) / n_steps) * whole(rng)

    posterior.kl = grow  # type: ignore[method-assign]


FAMILIES: dict[str, Start] = {
    "dirichlet": lambda n_channels, concentration, seed: DirichletPosterior(n_channels, concentration),
    "logistic-normal": lambda n_channels, concentration, seed: LogisticNormalPosterior(
        n_channels, concentration, seed=seed
    ),
}
SNR = {"statistic": "snr"}
FITTED = (
    FittedVariant("dirichlet, annealed", "dirichlet", is_annealed=True),
    FittedVariant("dirichlet, one simplex", "dirichlet", is_joint=True),
    FittedVariant("logistic-normal, snr, annealed", "logistic-normal", SNR, is_annealed=True),
    FittedVariant("logistic-normal, snr, one simplex", "logistic-normal", SNR, is_joint=True),
)


def find_fitted(chosen: str | None) -> list[Variant]:
    """Return those of `FITTED` that are named by their labels, separated by semicolons."""
    wanted = set() if chosen is None else {name.strip() for name in chosen.split(";")}
    return [variant for variant in FITTED if variant.label in wanted]
