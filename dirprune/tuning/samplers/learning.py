"""A sampler that may learn from stopped, paused and running trials too, and looks at a bounded number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from dirprune.study.floor import METRIC, Floor
from dirprune.tuning.samplers.known import Floats, Kind, KnownTrials, Numbers, choose_best
from dirprune.tuning.samplers.view import CONSTRAINTS, make_view, show_trial

N_BEST = 64
N_RECENT = 64


class LearningSampler(BaseSampler):
    """Let another sampler draw from a view of the study.

    The view shows the best trials and, besides, the most recent ones, so that asking takes no longer with
    10,000 trials than with 200. Trials that were stopped or are paused appear as finished ones, with the
    losses that `predict_final` gives them; so do running ones that have reported. Where nothing is predicted
    they appear without losses, as stopped and as running. Other running ones appear as running. Infeasible
    ones that never started appear with the worst losses of all and their constraints, and those whose
    training diverged with the worst losses; other failed ones do not appear. The storage is only read, and
    keeps the truth.

    Contract: it belongs to one study, and is asked by the one process that drives it. What happens to a trial
    between its ask and its end it hears through `learn`.

    Args:
        base: What draws. It sees each view as a study of its own in memory.
        n_best: Trials to show for their losses, >= 1.
        n_recent: Others to show, those with the highest numbers, >= 0.
        system_attributes: What `base` expects to find on every trial that has losses.
        predicts: Whether the losses of trials that have not finished are predicted.

    Attributes:
        floor: Least accuracy, by which the view constrains every trial that it shows losses of.
    """

    def __init__(
        self,
        base: BaseSampler,
        n_best: int = N_BEST,
        n_recent: int = N_RECENT,
        system_attributes: Mapping[str, Any] | None = None,
        predicts: bool = True,
    ) -> None:
        self.predicts = predicts
        self.floor: Floor | None = None
        self.base, self.n_best, self.n_recent = base, n_best, n_recent
        self._system_attributes = dict(system_attributes or {})
        self._known: KnownTrials | None = None
        self._view: optuna.Study | None = None

    def read(self, study: optuna.Study) -> None:
        """Take all trials of an earlier driver, so that the first ask takes no longer than the others."""
        self._get_known(study)

    def learn(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Take a trial as it is now."""
        self._get_known(study).take(trial)

    def choose_shown(self, study: optuna.Study, asking: int) -> list[FrozenTrial]:
        """Return the trials of the view as they are shown, by number.

        Args:
            study: The study.
            asking: Number of the trial to be drawn, which is not shown.
        """
        known = self._get_known(study)
        losses = known.predict() if self.predicts else known.read_final()
        told = known.find(Kind.LOSSES)
        told = told[told != asking]
        valued = told[~np.isnan(losses[told, 0])]
        best = choose_best(losses, self._find_acceptable(losses, valued), self.n_best)
        infeasible = known.find(Kind.INFEASIBLE)
        others = np.concatenate([told, known.find(Kind.RUNNING), infeasible])
        others = np.sort(others[(others != asking) & ~np.isin(others, best)])
        worst = losses[valued].max(axis=0) if len(valued) else np.zeros(losses.shape[1])
        shown = []
        for number in sorted([*best, *others[max(0, len(others) - self.n_recent) :].tolist()]):
            trial, has_losses = known.trials[number], not np.isnan(losses[number, 0])
            if not has_losses and number not in infeasible:
                shown.append(show_trial(trial, trial.state, None))
                continue
            values = (losses[number] if has_losses else worst).tolist()
            shown.append(show_trial(trial, TrialState.COMPLETE, values, self._attributes(values)))
        return shown

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Make the view, which lasts until the next trial is drawn, and return the base's search space."""
        shown = self.choose_shown(study, trial.number)
        self._view = make_view(self.base, len(study.directions), shown)
        return self.base.infer_relative_search_space(self._view, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Let the base draw from the view."""
        assert self._view is not None  # Optuna infers the search space first
        return self.base.sample_relative(self._view, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Let the base draw one parameter from the view."""
        assert self._view is not None
        return self.base.sample_independent(self._view, trial, param_name, param_distribution)

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Learn from a trial that is being told; the storage has its state only afterwards."""
        self.learn(study, show_trial(trial, state, values))

    def reseed_rng(self) -> None:
        """Reseed the base."""
        self.base.reseed_rng()

    def _find_acceptable(self, losses: Floats, numbers: Numbers) -> Numbers:
        if self.floor is None:
            return numbers
        return np.array([n for n in numbers if self.floor.shortfall(losses[n]) <= 0], dtype=np.int64)

    def _attributes(self, losses: Sequence[float]) -> dict[str, Any]:
        if self.floor is None:
            return self._system_attributes
        return {**self._system_attributes, f"{CONSTRAINTS}:{METRIC}": self.floor.shortfall(losses)}

    def _get_known(self, study: optuna.Study) -> KnownTrials:
        """Return what is known; at first that is what the storage has of an earlier driver."""
        if self._known is None:
            self._known = KnownTrials([direction.name.lower() for direction in study.directions])
            for trial in study.get_trials(deepcopy=False):
                self._known.take(trial)
        return self._known
