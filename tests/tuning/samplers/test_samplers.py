"""What every sampler promises a study, whatever its objectives and parameters."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from dirprune.errors import ConfigurationError
from dirprune.study.floor import Floor
from dirprune.tuning.samplers import SAMPLERS, check_choice, make_sampler

RUNG = 100


def draw(trial: optuna.Trial) -> tuple[float, float, float]:
    """Draw parameters of every kind, options of a method only where it is drawn; return three losses."""
    x = trial.suggest_float("x", 0.0, 1.0)
    n = trial.suggest_int("n", 1, 20)
    method = trial.suggest_categorical("method", ["magnitude", "taylor"])
    if method == "magnitude":
        trial.suggest_categorical("magnitude.norm", ["l1", "l2"])
    return (x - 0.3) ** 2 + 1.0 / n, n / 20, x


GP_IS_SLOW = [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS]


class Plane:
    """What is known of trials with two parameters x and y, where losses and limits come from functions."""

    def __init__(self, look, reference=None) -> None:
        self.known, self.reference = look, reference

    def look(self, trial, architecture=None):
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        losses = self.known(x, y)
        return None if losses is None else (np.array([x, y]), np.array(losses))

    def spread(self, rng):
        return {}


class Drawing:
    """What a study knows before a trial of `draw`: all losses but the first."""

    reference = None

    def __init__(self, n_objectives: int) -> None:
        self.n_objectives = n_objectives

    def look(self, trial, architecture=None):
        losses = np.array(draw(trial)[: self.n_objectives])
        losses[0] = np.nan
        n, method = trial.params["n"], trial.params["method"]
        if n > 18:
            return None
        options = [trial.params.get("magnitude.norm") == norm for norm in ("l1", "l2")]
        return np.array([trial.params["x"], n / 20, method == "taylor", *options], dtype=float), losses

    def spread(self, rng):
        return {"n": int(rng.integers(1, 19))}


def run_study(name: str, seed: int, n_trials: int, n_objectives: int, n_known: int = 0) -> optuna.Study:
    """Run a study in which every third trial stops at a rung and some are infeasible."""
    study = optuna.create_study(
        directions=["minimize"] * n_objectives,
        sampler=make_sampler(name, seed, n_known, problem=Drawing(n_objectives)),
    )
    for number in range(n_trials):
        trial = study.ask()
        losses = draw(trial)[:n_objectives]
        trial.set_constraint("n", trial.params["n"] - 18)
        if trial.params["n"] > 18:
            study.tell(trial, state=TrialState.PRUNED)
            continue
        trial.set_user_attr(f"rung:{RUNG}", [1.5 * loss for loss in losses])
        if number % 3 == 2:
            trial.set_user_attr("stopped_at", RUNG)
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, list(losses))
    return study


def drawn(study: optuna.Study) -> list[dict]:
    return [trial.params for trial in study.get_trials(deepcopy=False)]


N_TRIALS = {"gp": 14, "ehvi": 30}  # it begins to model after 10, and takes its time


@pytest.mark.parametrize("n_objectives", [1, 2, 3])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_draws_from_the_space_whatever_the_number_of_objectives(name, n_objectives):
    study = run_study(name, 0, N_TRIALS.get(name, 60), n_objectives)
    trials = drawn(study)
    assert all(0 <= trial["x"] <= 1 and 1 <= trial["n"] <= 20 for trial in trials)
    assert {trial["method"] for trial in trials} == {"magnitude", "taylor"}
    assert all(("magnitude.norm" in trial) == (trial["method"] == "magnitude") for trial in trials)
    assert len({tuple(sorted(trial.items())) for trial in trials}) > 0.7 * len(trials)


@pytest.mark.parametrize("name", GP_IS_SLOW)
def test_same_seed_draws_the_same_and_another_does_not(name):
    n_trials = N_TRIALS.get(name, 40)
    first = drawn(run_study(name, 3, n_trials, 2))
    assert drawn(run_study(name, 3, n_trials, 2)) == first
    assert drawn(run_study(name, 4, n_trials, 2)) != first


@pytest.mark.parametrize("name", SAMPLERS)
def test_resumed_study_draws_on_instead_of_drawing_the_same_again(name):
    assert drawn(run_study(name, 3, 5, 2, n_known=5)) != drawn(run_study(name, 3, 5, 2))


def test_large_seeds_work():
    assert drawn(run_study("tpe", 10**12, 3, 2)) != drawn(run_study("tpe", 10**12 + 1, 3, 2))


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "random"])
def test_samplers_learn_where_trials_are_infeasible(name):
    """Above 0.4 nothing is feasible, and losses say to go there."""
    problem = Plane(lambda x, y: None if x > 0.4 else (np.nan, y))
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=make_sampler(name, 0, 0, problem=problem)
    )
    n_trials = 30 if name in N_TRIALS else 150
    for _ in range(n_trials):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        trial.set_constraint("x", x - 0.4)
        if x > 0.4:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, [1 - x + y, y])
    late = [trial["x"] <= 0.4 for trial in drawn(study)[n_trials // 2 :]]
    assert sum(late) / len(late) > 0.6


@pytest.mark.parametrize("name", [each for each in GP_IS_SLOW if each != "random"])
def test_samplers_leave_what_is_below_the_least_accuracy(name):
    """Cost alone says to go to 0, where accuracy goes; every third trial is stopped and has no constraint."""
    floor = Floor(0.6, 0)
    problem = Plane(lambda x, y: (np.nan, x + 0.1 * y), np.array([-0.6, 1.1]))
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler(name, 0, 0, floor=floor, problem=problem)
    )
    n_trials = 30 if name in N_TRIALS else 150
    for number in range(n_trials):
        trial = study.ask()
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", 0.0, 1.0)
        accuracy, cost = x * (1 - 0.2 * y), x + 0.1 * y
        trial.set_user_attr(f"rung:{RUNG}", [-0.9 * accuracy, cost])
        if number % 3 == 2:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_constraint("val_accuracy", floor.shortfall([-accuracy, cost]))
            study.tell(trial, [accuracy, cost])
    late = [trial["x"] * (1 - 0.2 * trial["y"]) >= 0.6 for trial in drawn(study)[n_trials // 2 :]]
    assert sum(late) / len(late) > 0.5  # the space alone: 0.33


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_samplers_note_stays_out_of_the_storage(name):
    study = run_study(name, 0, N_TRIALS.get(name, 30), 2)
    noted = {key.split(":")[0] for trial in study.trials for key in trial.system_attrs}
    assert noted == {"constraints"}


def test_unknown_sampler_is_named_with_the_nearest():
    with pytest.raises(ConfigurationError, match=r"unknown sampler 'nsga'; did you mean 'nsga3'"):
        make_sampler("nsga", 0, 0)
    with pytest.raises(ConfigurationError, match=r"unknown sampler 'tbe'; did you mean 'tpe'.* auto"):
        check_choice("tbe")
