"""What a sampler is shown of a study."""

from __future__ import annotations

import random

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from dirprune.errors import TrainingDiverged
from dirprune.study.floor import Floor
from dirprune.trial import describe_failure
from dirprune.tuning.samplers import SAMPLERS, make_sampler
from dirprune.tuning.samplers.known import choose_best
from dirprune.tuning.samplers.learning import LearningSampler
from dirprune.tuning.storage import REASON
from tests.tuning.samplers.test_samplers import Plane

LEARNING = [
    name for name in SAMPLERS if name not in ("random", "ehvi")
]  # ehvi does better without (measured)
DISTRIBUTIONS = {"x": FloatDistribution(0.0, 1.0)}


class Listener(optuna.samplers.RandomSampler):
    """Draws at random and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.shown: list[list[FrozenTrial]] = []

    def infer_relative_search_space(self, study, trial):
        self.shown.append(study.get_trials(deepcopy=False))
        return {}


def make_study(n_objectives: int = 2, **options) -> tuple[optuna.Study, LearningSampler]:
    sampler = LearningSampler(Listener(), **options)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"][:n_objectives])
    study.sampler = sampler
    return study, sampler


def start(study: optuna.Study, x: float, **rungs: list[float]) -> optuna.Trial:
    """Start a trial and let it report at rungs: r100=[...] for the one at 100 images."""
    study.enqueue_trial({"x": x})
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    for name, losses in rungs.items():
        trial.set_user_attr(f"rung:{name[1:]}", losses)
    learn(study, trial)
    return trial


def learn(study: optuna.Study, trial: optuna.Trial) -> None:
    study.sampler.learn(study, study._storage.get_trial(trial._trial_id))


def look(study: optuna.Study, sampler: LearningSampler) -> dict[int, FrozenTrial]:
    return {trial.number: trial for trial in sampler.choose_shown(study, asking=-1)}


def test_stopped_paused_and_reporting_trials_are_shown_with_predicted_losses():
    study, sampler = make_study()
    study.tell(start(study, 0.1, r100=[-0.5, 3.0]), [0.7, 3.0])
    study.tell(start(study, 0.2, r100=[-0.4, 5.0]), state=TrialState.PRUNED)
    paused = start(study, 0.3, r100=[-0.3, 2.0])
    paused.set_user_attr("paused_at", 100)
    learn(study, paused)
    start(study, 0.4)
    study.tell(start(study, 0.5, r100=[-0.9, 1.0]), state=TrialState.FAIL)
    shown = look(study, sampler)
    assert [trial.state.name for trial in shown.values()] == ["COMPLETE"] * 3 + ["RUNNING"]
    assert shown[0].values == [-0.7, 3.0]
    assert shown[1].values == pytest.approx([-0.6, 5.0])
    assert shown[2].values == pytest.approx([-0.5, 2.0])
    assert shown[3].params == {"x": 0.4}
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "RUNNING", "RUNNING", "FAIL"]


def test_where_nothing_is_predicted_only_finished_trials_have_losses():
    study, sampler = make_study(predicts=False)
    study.tell(start(study, 0.1, r100=[-0.5, 3.0]), [0.7, 3.0])
    study.tell(start(study, 0.2, r100=[-0.4, 5.0]), state=TrialState.PRUNED)
    start(study, 0.3, r100=[-0.9, 2.0])
    failed = start(study, 0.4)
    failed.set_constraint("macs", 5.0)
    study.tell(failed, state=TrialState.PRUNED)
    shown = look(study, sampler)
    assert [trial.state.name for trial in shown.values()] == ["COMPLETE", "PRUNED", "RUNNING", "COMPLETE"]
    assert [trial.values for trial in shown.values()] == [[-0.7, 3.0], None, None, [-0.7, 3.0]]


def test_infeasible_trials_are_shown_with_the_worst_losses_and_their_constraints():
    study, sampler = make_study()
    study.tell(start(study, 0.1), [0.7, 3.0])
    study.tell(start(study, 0.1), [0.8, 4.0])
    refused = start(study, 0.2)
    refused.set_constraint("macs", 5.0)
    study.tell(refused, state=TrialState.PRUNED)
    shown = look(study, sampler)[2]
    assert shown.values == [-0.7, 4.0]
    assert shown.constraints == {"macs": 5.0}


def test_a_trial_whose_training_diverged_is_shown_with_the_worst_losses():
    study, sampler = make_study()
    study.tell(start(study, 0.1), [0.7, 3.0])
    study.tell(start(study, 0.1), [0.8, 4.0])
    for error in (TrainingDiverged("the training loss is not finite"), RuntimeError("lost its node")):
        failed = start(study, 0.2, r100=[-0.9, 1.0])
        failed.set_user_attr(REASON, describe_failure(error))
        study.tell(failed, state=TrialState.FAIL)
    assert {number: trial.values for number, trial in look(study, sampler).items()} == {
        0: [-0.7, 3.0],
        1: [-0.8, 4.0],
        2: [-0.7, 4.0],
    }


@pytest.mark.parametrize("name", ["tpe", "ehvi"])
def test_samplers_turn_away_from_what_diverges(name):
    """Half of the space diverges, and next to it are the best trials."""
    n_failed = {}
    for error in (TrainingDiverged("the training loss is not finite"), RuntimeError("lost its node")):
        study = optuna.create_study(directions=["minimize", "minimize"])
        study.sampler = make_sampler(
            name, 0, 0, problem=Plane(lambda x, y: [np.nan, y], np.array([1.5, 1.5]))
        )
        outcomes = []
        for _ in range(40):
            trial = study.ask()
            x, y = (trial.suggest_float(axis, 0.0, 1.0) for axis in "xy")
            outcomes.append(x > 0.5)
            if x > 0.5:
                trial.set_user_attr(REASON, describe_failure(error))
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, [1 - x, y])
        n_failed[type(error)] = sum(outcomes[20:])
    assert n_failed[TrainingDiverged] < 0.6 * n_failed[RuntimeError]


def add_trials(study: optuna.Study, n_trials: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(n_trials):
        x, y = rng.random(2).tolist()
        is_finished = number % 3 == 0
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_finished else TrialState.PRUNED,
                values=[x, y] if is_finished else None,
                params={"x": x},
                distributions=DISTRIBUTIONS,
                user_attrs={"rung:100": [-x, y]},
            )
        )


@pytest.mark.parametrize("n_trials", [5, 200, 2000])
def test_number_of_trials_that_a_sampler_sees_is_bounded(n_trials):
    study, sampler = make_study(n_best=40, n_recent=30)
    add_trials(study, n_trials)
    study.ask().suggest_float("x", 0.0, 1.0)
    (shown,) = sampler.base.shown
    numbers = [trial.number for trial in shown]
    assert len(numbers) == min(n_trials, 70)
    assert numbers == sorted(set(numbers))
    losses = np.array([trial.user_attrs["rung:100"] for trial in study.trials[:n_trials]])
    assert set(choose_best(losses, np.arange(n_trials), 40)) <= set(numbers)


def test_most_recent_trials_are_seen_besides_the_best():
    study, sampler = make_study(n_best=2, n_recent=3)
    for x in (0.9, 0.8, 0.1, 0.2, 0.3, 0.1, 0.2):
        study.tell(start(study, x), [x, 1.0])
    assert list(look(study, sampler)) == [0, 1, 4, 5, 6]


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 5])
def test_best_are_chosen_for_any_number_of_objectives(n_objectives):
    losses = np.random.default_rng(0).random((1500, n_objectives))
    losses[-7] = -1.0
    chosen = choose_best(losses, np.arange(1500), 20)
    assert len(set(chosen)) == 20
    assert chosen[0] == 1493


def test_view_of_a_resumed_study_is_that_of_the_uninterrupted_one():
    study, sampler = make_study(n_best=10, n_recent=10)
    rng = random.Random(0)
    open_trials: list[optuna.Trial] = []
    for number in range(80):
        x = rng.random()
        open_trials.append(start(study, x, r100=[-x / 2, 1 - x], r10=[-x / 4, 1 - x]))
        if number % 4:
            trial = open_trials.pop(rng.randrange(len(open_trials)))
            kind = rng.choice(["complete", "stopped", "failed", "infeasible"])
            if kind == "complete":
                study.tell(trial, [trial.params["x"], 1 - trial.params["x"]])
            elif kind == "infeasible":
                trial.set_constraint("macs", 1.0)
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, state=TrialState.PRUNED if kind == "stopped" else TrialState.FAIL)
    resumed = LearningSampler(Listener(), n_best=10, n_recent=10)
    before, after = sampler.choose_shown(study, -1), resumed.choose_shown(study, -1)
    assert len(before) == 20
    for name in ("number", "state", "values", "params", "constraints", "distributions"):
        assert [getattr(t, name) for t in before] == [getattr(t, name) for t in after], name


@pytest.mark.parametrize("name", LEARNING)
def test_proposals_follow_trials_that_were_stopped(name):
    """The finished trials are all alike: where it is better, only the stopped ones say."""
    distances = {}
    for has_rungs in (True, False):
        study = optuna.create_study(direction="minimize")
        rng = np.random.default_rng(0)
        for number in range(40):
            is_finished = number < 2
            params = dict.fromkeys("xy", 0.5) if is_finished else dict(zip("xy", rng.random(2), strict=True))
            loss = measure_distance(params)
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if is_finished else TrialState.PRUNED,
                    value=loss if is_finished else None,
                    params=params,
                    distributions=dict.fromkeys("xy", FloatDistribution(0.0, 1.0)),
                    user_attrs={"rung:100": [loss]} if has_rungs else {},
                )
            )
        study.sampler = make_sampler(name, 0, 40, problem=Plane(lambda x, y: (np.nan,)))
        found = []
        for _ in range(3 if name == "gp" else 25):
            trial = study.ask()
            found.append(measure_distance({key: trial.suggest_float(key, 0.0, 1.0) for key in "xy"}))
        distances[has_rungs] = float(np.median(found))
    assert distances[True] < 0.7 * distances[False]


def measure_distance(params: dict[str, float]) -> float:
    return float(np.hypot(params["x"] - 0.1, params["y"] - 0.85))


def test_with_a_least_accuracy_every_shown_trial_says_how_far_it_is_from_it():
    study, sampler = make_study(n_best=2, n_recent=1)
    sampler.floor = Floor(0.6, 0)
    study.tell(start(study, 0.1, r100=[-0.5, 3.0]), [0.7, 3.0])
    study.tell(start(study, 0.2, r100=[-0.2, 1.0]), state=TrialState.PRUNED)
    cheap = start(study, 0.3)
    cheap.set_constraint("val_accuracy", 0.2)
    study.tell(cheap, [0.4, 0.5])
    shown = look(study, sampler)
    assert {number: trial.constraints["val_accuracy"] > 0 for number, trial in shown.items()} == {
        0: False,
        2: True,
    }
    assert shown[2].values == [-0.4, 0.5]
