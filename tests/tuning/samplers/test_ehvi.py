"""Proposals by expected hypervolume improvement, and what they are made of."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from dirprune.cost import CostModel
from dirprune.networks import create_network
from dirprune.pareto import hypervolume
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups
from dirprune.tuning.samplers import make_sampler
from dirprune.tuning.samplers.draft import Draft
from dirprune.tuning.samplers.improvement import compute_improvements
from dirprune.tuning.samplers.problem import StudyProblem
from dirprune.tuning.samplers.surrogate import Surrogate

LOSS = st.floats(-1.0, 1.5, allow_subnormal=False)


@settings(deadline=None)
@given(
    st.integers(1, 3).flatmap(
        lambda m: st.tuples(
            st.lists(st.tuples(*[LOSS] * m), max_size=8), st.lists(st.tuples(*[LOSS] * m), min_size=1)
        )
    )
)
def test_improvement_is_what_the_hypervolume_grows_by(drawn):
    front, points = drawn
    corner = np.ones(len(points[0]))
    known = np.array(front, dtype=float).reshape(len(front), len(corner))
    before = hypervolume(known, corner) if front else 0.0
    expected = [hypervolume(np.vstack([known, point]), corner) - before for point in np.array(points)]
    assert compute_improvements(np.array(points), known, corner) == pytest.approx(expected, abs=1e-9)


def test_surrogate_finds_a_slope_in_noise_and_is_surer_near_what_it_knows():
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 1, (40, 3))
    truth = np.exp(2 * features[:, 0]) / 10
    surrogate = Surrogate()
    surrogate.fit(features, truth + rng.normal(0, 0.01, 40), 40)
    unseen = rng.uniform(0, 1, (20, 3))
    mean, deviation = surrogate.predict(unseen)
    assert surrogate.to_losses(mean) == pytest.approx(np.exp(2 * unseen[:, 0]) / 10, abs=0.05)
    assert surrogate.predict(unseen + 5)[1].min() > deviation.max()


def test_surrogate_looks_for_its_parameters_again_when_it_is_always_shown_as_many_trials():
    rng = np.random.default_rng(0)
    features = rng.uniform(0, 1, (40, 2))
    surrogate = Surrogate()
    surrogate.fit(features, rng.normal(0, 1, 40) ** 2, n_told=200)
    truth = np.exp(features[:, 0])
    surrogate.fit(features, truth, n_told=202)
    assert abs(surrogate.to_losses(surrogate.predict(features)[0]) - truth).max() > 0.1
    surrogate.fit(features, truth, n_told=206)
    assert surrogate.to_losses(surrogate.predict(features)[0]) == pytest.approx(truth, abs=0.02)


def test_equal_losses_do_not_stop_a_surrogate():
    surrogate = Surrogate()
    surrogate.fit(np.arange(8.0)[:, None], np.full(8, 0.3), 8)
    assert surrogate.to_losses(surrogate.predict(np.array([[3.0]]))[0]) == pytest.approx([0.3])


def test_a_draft_stays_near_its_base_and_inside_the_space():
    rng = np.random.default_rng(0)
    base = {"x": 0.01, "n": 7, "method": "taylor"}
    found = []
    for _ in range(300):
        draft = Draft(rng, base, change=0.5)
        found.append((draft.suggest_float("x", 1e-3, 1e-1, log=True), draft.suggest_int("n", 1, 20)))
        assert draft.suggest_categorical("method", ["magnitude", "taylor"]) in ("magnitude", "taylor")
    values, numbers = np.array(found).T
    assert 1e-3 <= values.min() < 0.01 < values.max() <= 1e-1
    assert 1 <= numbers.min() < 7 < numbers.max() <= 20
    assert 0.4 < np.mean(values == 0.01) < 0.6
    same = Draft(rng, base)
    assert (same.suggest_int("n", 1, 20), same.suggest_float("x", 1e-3, 1e-1)) == (7, 0.01)


@pytest.fixture(scope="module")
def problem() -> StudyProblem:
    network, example = create_network("lenet5").eval(), torch.zeros(2, 1, 28, 28)
    costs = CostModel(network, find_groups(network, example), example)
    space = SearchSpace(fine_tuning={"lr": Range(1e-3, 1e-1, log=True)}, min_keep_ratio=0.1)
    spec = StudySpec("study", "lenet5", "digits", space=space, limits={"macs": 300_000.0})
    return StudyProblem(spec, space.shapes(costs, spec.limits), costs, {"val_accuracy": 0.1, "macs": 498_750})


def test_costs_are_known_before_a_trial_and_limits_refuse(problem):
    chosen = {"method": "magnitude", "magnitude.norm": "l2", "fine_tuning.lr": 1e-2}
    kept = {"kept/conv1": 8, "kept/conv2": 9, "kept/linear1": 36, "kept/linear2": 17}
    features, losses = problem.look(FixedTrial({**chosen, **kept}))
    assert np.isnan(losses[0])
    assert losses[1] == 236_366
    assert features[:4] == pytest.approx(np.log([0.8, 0.45, 0.36, 0.68]))
    assert features[-1] == pytest.approx(0.5)
    assert features[4:-1].sum() == 2  # the method and its option
    whole = {"kept/conv1": 10, "kept/conv2": 20, "kept/linear1": 100, "kept/linear2": 25}
    assert problem.look(FixedTrial({**chosen, **whole}), problem.costs.n_channels) is None
    assert problem.look(FixedTrial({**chosen, **whole}))[1][1] <= problem.limits["macs"]  # it shrinks


def test_spread_architectures_lie_all_along_the_cost_axis(problem):
    rng = np.random.default_rng(0)
    macs = []
    for _ in range(400):
        kept = {name.removeprefix("kept/"): int(n) for name, n in problem.spread(rng).items()}
        macs.append(problem.costs.costs(kept).macs / 498_750)
    assert np.histogram(macs, bins=4, range=(0, 1))[0].min() > 40


def test_it_finds_more_than_random_and_proposes_nothing_twice(problem):
    volumes = {}
    for name in ("random", "ehvi"):
        study = optuna.create_study(
            directions=["maximize", "minimize"], sampler=make_sampler(name, 0, 0, problem=problem)
        )
        points, seen = [], set()
        for number in range(40):
            trial = study.ask()
            drawn = problem.space.suggest(trial, problem.shapes, number, "sampler")
            macs = problem.costs.costs(drawn.architecture).macs
            ratios = [drawn.architecture[name] / n for name, n in problem.costs.n_channels.items()]
            accuracy = 0.1 + 0.89 * float(np.exp(-sum((1 / r - 1) * 0.01 for r in ratios[:2])))
            points.append([-accuracy, macs / 498_750])
            seen.add(tuple(sorted(trial.params.items())))
            study.tell(trial, [accuracy, macs])
        volumes[name] = hypervolume(np.array(points), [-0.1, 1.0])
        assert len(seen) == 40
    assert volumes["ehvi"] > volumes["random"] + 0.02


def test_it_proposes_no_stopped_trial_again(problem):
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=make_sampler("ehvi", 0, 0, problem=problem)
    )
    seen = set()
    for number in range(30):
        trial = study.ask()
        drawn = problem.space.suggest(trial, problem.shapes, number, "sampler")
        macs = problem.costs.costs(drawn.architecture).macs
        seen.add(tuple(sorted(trial.params.items())))
        trial.set_user_attr("rung:100", [-0.9, float(macs)])
        if number % 3 == 0:
            study.tell(trial, [0.9, macs])
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert len(seen) == 30
