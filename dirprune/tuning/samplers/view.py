"""A small study in memory that shows a sampler some trials of another one, as it should see them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

CONSTRAINTS = "constraints"  # how Optuna's names of a trial's constraints begin


class _ViewStorage(optuna.storages.InMemoryStorage):
    """Optuna's storage in memory, holding trials that are given and not written."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = list(trials)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the given trials, not copied: samplers read them."""
        return [trial for trial in self._shown if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Keep nothing of what a sampler notes on the trial that it draws: the next view has it whole."""


def make_view(sampler: BaseSampler, n_objectives: int, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study that has these trials, increasing by number, and minimises every objective."""
    return optuna.create_study(
        storage=_ViewStorage(trials),
        study_name="view",
        sampler=sampler,
        directions=["minimize"] * n_objectives,
    )


def show_trial(
    trial: FrozenTrial,
    state: TrialState,
    values: Sequence[float] | None,
    system_attributes: Mapping[str, Any] | None = None,
) -> FrozenTrial:
    """Return a trial as a sampler should see it: its own parameters and constraints, and what is given.

    Args:
        trial: As it is; parameters are shared, not copied.
        state: To be shown.
        values: To be shown.
        system_attributes: To be shown besides its constraints.
    """
    constraints = {name: value for name, value in trial.system_attrs.items() if name.startswith(CONSTRAINTS)}
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=None,
        values=values,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={**constraints, **(system_attributes or {})},
        intermediate_values={},
        trial_id=trial._trial_id,
    )
