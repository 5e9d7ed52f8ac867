"""Proposals by expected hypervolume improvement: costs are known exactly, the rest is modelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import norm

from dirprune.pareto import front_mask
from dirprune.tuning.samplers import N_STARTUP
from dirprune.tuning.samplers.draft import Draft
from dirprune.tuning.samplers.improvement import Floats, compute_improvements
from dirprune.tuning.samplers.problem import Problem
from dirprune.tuning.samplers.surrogate import Surrogate
from dirprune.tuning.storage import ARCHITECTURE

N_DRAFTS = 96
N_NEAR = 64
N_PARENTS = 8
N_DRAWS = 16
N_SCREENED = 32
CHANGED = 0.4
MAX_TRIES = 20
SEEN = (TrialState.COMPLETE, TrialState.RUNNING, TrialState.PRUNED)


@dataclass(frozen=True)
class _Proposal:
    """A draft, and what its study knows of it."""

    draft: Draft
    features: Floats
    losses: Floats

    @property
    def key(self) -> bytes:
        """What configurations share that are the same, whatever numbers they were drawn by."""
        return self.features.tobytes()


class EhviSampler(BaseSampler):
    """Propose what adds most hypervolume to the front in expectation [Emmerich et al. 2006].

    Costs of a configuration are computed, not modelled; a Gaussian process models each other objective over
    the trials that have losses. Of configurations from the space, from all along the cost axis, and near the
    front, and then of some near the best of these, the one is proposed whose expected improvement is largest
    over quantiles of the models' posteriors. The front is taken as the models have it, without noise;
    trials that still run count as what is expected of them. Nothing is proposed twice. The first trials of a
    study, up to 8, come from the space alone.

    Args:
        seed: Decides all draws.
        problem: What the study knows of configurations.
    """

    def __init__(self, seed: int, problem: Problem) -> None:
        self.problem = problem
        self._random = RandomSampler(seed=seed)
        self._rng = np.random.default_rng(seed)
        self._features: dict[int, Floats] = {}
        self._surrogates: dict[int, Surrogate] = {}
        self._chosen: Draft | None = None

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Choose a configuration, and return what its parameters are drawn from."""
        trials = study.get_trials(deepcopy=False, states=SEEN)
        self._chosen = self._choose([t for t in trials if t.number != trial.number and t.params])
        if self._chosen is None:
            return {}
        spaces = self._chosen.distributions.items()
        return {name: distribution for name, distribution in spaces if not distribution.single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of the chosen configuration."""
        return {} if self._chosen is None else {name: self._chosen.params[name] for name in search_space}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw from the space alone, where nothing that a limit allows was found."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other numbers from here on."""
        self._random.reseed_rng()
        self._rng = np.random.default_rng()

    def _choose(self, trials: Sequence[FrozenTrial]) -> Draft | None:
        trials = [t for t in trials if self._find_features(t) is not None]
        seen = {features.tobytes() for features in self._features.values()}
        known = [t for t in trials if t.state == TrialState.COMPLETE]
        if len(trials) < N_STARTUP or len(known) < N_STARTUP // 2:
            return next((found.draft for found in self._draw(1, [], seen)), None)
        features = np.array([self._features[t.number] for t in known])
        losses = np.array([t.values for t in known])
        drafts = self._draw(N_DRAFTS, [known[i].params for i in np.flatnonzero(front_mask(losses))], seen)
        if not drafts:
            return None
        modelled = np.flatnonzero(np.isnan(drafts[0].losses))
        for place in modelled:
            surrogate = self._surrogates.setdefault(int(place), Surrogate())
            surrogate.fit(features, losses[:, place], n_told=trials[-1].number + 1)
        running = [t for t in trials if t.state == TrialState.RUNNING]
        front = np.vstack([self._smooth(features, losses), *self._expect(running)])
        corner = losses.max(axis=0) if self.problem.reference is None else self.problem.reference
        values = self._rate(drafts, front, corner)
        parents = [drafts[i].draft.params for i in np.argsort(-values, kind="stable")[:N_PARENTS]]
        if near := self._vary(N_NEAR, parents, seen | {draft.key for draft in drafts}):
            drafts = [*drafts, *near]
            values = np.concatenate([values, self._rate(near, front, corner)])
        if values.max() <= 0:
            return drafts[int(self._rng.integers(len(drafts)))].draft
        return drafts[int(np.argmax(values))].draft

    def _find_features(self, trial: FrozenTrial) -> Floats | None:
        if trial.number not in self._features:
            look = self.problem.look(Draft(self._rng, trial.params), trial.user_attrs.get(ARCHITECTURE))
            if look is None:
                return None
            self._features[trial.number] = look[0]
        return self._features[trial.number]

    def _draw(self, n: int, members: Sequence[dict[str, Any]], seen: set[bytes]) -> list[_Proposal]:
        """Return new configurations: near members of a front, from the space, along the cost axis."""
        found: dict[bytes, _Proposal] = {}
        for place in range(MAX_TRIES * n):
            if members and place % 3 == 0:
                base = members[int(self._rng.integers(len(members)))]
                draft = Draft(self._rng, base, CHANGED)
            elif place % 3 == 1 or not members:
                draft = Draft(self._rng)
            else:
                draft = Draft(self._rng, self.problem.spread(self._rng))
            self._note(draft, seen, found)
            if len(found) == n:
                break
        return list(found.values())

    def _vary(self, n: int, parents: Sequence[dict[str, Any]], seen: set[bytes]) -> list[_Proposal]:
        found: dict[bytes, _Proposal] = {}
        for place in range(n):
            self._note(Draft(self._rng, parents[place % len(parents)], CHANGED), seen, found)
        return list(found.values())

    def _note(self, draft: Draft, seen: set[bytes], found: dict[bytes, _Proposal]) -> None:
        look = self.problem.look(draft)
        if look is not None:
            proposal = _Proposal(draft, *look)
            if proposal.key not in seen:
                found.setdefault(proposal.key, proposal)

    def _smooth(self, features: Floats, losses: Floats) -> Floats:
        """Return the losses of trials with what is modelled as the models have it."""
        smooth = losses.copy()
        for place, surrogate in self._surrogates.items():
            smooth[:, place] = surrogate.to_losses(surrogate.predict(features)[0])
        return smooth

    def _expect(self, trials: Sequence[FrozenTrial]) -> list[Floats]:
        """Return the losses that trials without any are expected to have, a row for each."""
        rows = []
        for trial in trials:
            look = self.problem.look(Draft(self._rng, trial.params), trial.user_attrs.get(ARCHITECTURE))
            if look is not None:
                rows.append(self._smooth(look[0][None], look[1][None]))
        return rows

    def _rate(self, proposals: Sequence[_Proposal], front: Floats, corner: Floats) -> Floats:
        """Return the expected improvement of each proposal, shape (n,)."""
        features = np.array([proposal.features for proposal in proposals])
        losses = np.repeat(np.array([p.losses for p in proposals])[:, None], N_DRAWS, axis=1)
        optimistic = losses[:, 0].copy()
        for place, surrogate in self._surrogates.items():
            mean, deviation = surrogate.predict(features)
            draws = norm.ppf((self._rng.permutation(N_DRAWS) + 0.5) / N_DRAWS)
            losses[:, :, place] = surrogate.to_losses(mean[:, None] + deviation[:, None] * draws)
            optimistic[:, place] = surrogate.to_losses(mean - deviation)
        shown = np.arange(len(proposals))
        if losses.shape[2] != 2:  # each improvement is a hypervolume of its own
            shown = np.argsort(-compute_improvements(optimistic, front, corner), kind="stable")[:N_SCREENED]
        values = np.zeros(len(proposals))
        points = losses[shown].reshape(-1, losses.shape[2])
        values[shown] = compute_improvements(points, front, corner).reshape(-1, N_DRAWS).mean(axis=1)
        return values
