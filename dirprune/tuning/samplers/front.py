"""Proposals near the Pareto front: a member of the front, changed as good trials differ from each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from dirprune.pareto import front_mask
from dirprune.study.shapes import TARGET
from dirprune.tuning.samplers.known import choose_best

Floats = NDArray[np.float64]

N_STARTUP = 10
PRIOR = 0.1
CHANGED = 0.5
SCALE = 0.5
JITTER = 0.02

BUDGET_SCALE = 0.15
MIN_GOOD = 8


class FrontSampler(BaseSampler):
    """Take a member of the front and move it by the difference of two good trials.

    The member is drawn with a weight that grows with the gap around it on the front. Half of its parameters
    then move by half the difference of two of the best quarter of the trials [differential evolution; Storn
    and Price 1997], and by a normal number with 2% of the range as standard deviation; a categorical one
    takes the first one's value where the two differ. A cost target moves by less than a third of that, so
    that the proposal stays near the member's budget. The first 10 trials, a tenth of the others, and
    parameters that the member does not have, come from the space alone.

    It goes by the names and distributions of the parameters of finished trials, whatever they mean.

    Args:
        seed: Decides all draws.
    """

    def __init__(self, seed: int) -> None:
        self._random = RandomSampler(seed=seed)
        self._rng = np.random.default_rng(seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return every parameter that a finished trial has."""
        space: dict[str, BaseDistribution] = {}
        for finished in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            space.update(finished.distributions)
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters of a changed member of the front, or none of them."""
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        trials = [t for t in finished if all(value <= 0 for value in t.constraints.values())]
        if len(trials) < N_STARTUP or self._rng.random() < PRIOR:
            return {}
        losses = np.array([t.values for t in trials])
        losses[:, [d == optuna.study.StudyDirection.MAXIMIZE for d in study.directions]] *= -1
        (members,) = np.nonzero(front_mask(losses))
        member = trials[int(self._rng.choice(members, p=weigh_gaps(losses[members])))].params
        params = {name: member[name] for name in search_space if name in member}
        n_good = max(MIN_GOOD, len(trials) // 4)
        good = choose_best(losses, np.arange(len(trials)), n_good)
        first, second = (trials[place].params for place in self._rng.choice(good, 2, replace=False))
        return self._move(params, first, second, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw from the space alone."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def reseed_rng(self) -> None:
        """Draw other numbers from here on."""
        self._random.reseed_rng()
        self._rng = np.random.default_rng()

    def _move(
        self,
        params: dict[str, Any],
        first: dict[str, Any],
        second: dict[str, Any],
        space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        moved = dict(params)
        for name, value in params.items():
            if self._rng.random() >= CHANGED or name not in first or name not in second:
                continue
            distribution = space[name]
            if isinstance(distribution, CategoricalDistribution):
                if first[name] != second[name]:
                    moved[name] = first[name]
                continue
            scale = BUDGET_SCALE if name == TARGET else SCALE
            moved[name] = self._step(distribution, value, first[name], second[name], scale)
        if moved == params and params:
            names = list(params)
            name = names[self._rng.integers(len(names))]
            moved[name] = self._draw_other(space[name], params[name])
        return moved

    def _step(
        self, distribution: BaseDistribution, value: float, first: float, second: float, scale: float
    ) -> float:
        """Return a number moved by a share of a difference and a little, within its range."""
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = float(distribution.low), float(distribution.high)
        if distribution.log:
            low, high, value, first, second = map(math.log, (low, high, value, first, second))
        moved = value + scale * (first - second) + self._rng.normal(0.0, JITTER * (high - low))
        moved = math.exp(moved) if distribution.log else moved
        return _round_into(distribution, moved)

    def _draw_other(self, distribution: BaseDistribution, value: Any) -> Any:
        """Return another value than that, where a few draws find one."""
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[self._rng.integers(len(others))]
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        ends = (float(distribution.low), float(distribution.high))
        return _round_into(distribution, self._rng.uniform(*ends))


def _round_into(distribution: FloatDistribution | IntDistribution, value: float) -> float:
    """Return the nearest value that a number may take."""
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        value = low + distribution.step * round((value - low) / distribution.step)
    value = min(max(value, low), high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def weigh_gaps(losses: Floats) -> Floats:
    """Return for each member of a front how likely it is drawn, more where its neighbours are farther away.

    Args:
        losses: Shape (n_members, n_objectives).
    Returns:
        Shape (n_members,), > 0, adding up to 1: half of it in equal parts, half by the sum over the
        objectives of the distance between a member's neighbours in units of the front's range.
    """
    n_members = len(losses)
    gaps = np.zeros(n_members)
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        steps = np.diff(column[order])
        if steps.sum() > 0:
            gaps[order] += (np.append(0.0, steps) + np.append(steps, 0.0)) / steps.sum()
    return (1 / n_members + gaps / gaps.sum()) / 2 if gaps.sum() > 0 else np.full(n_members, 1 / n_members)
