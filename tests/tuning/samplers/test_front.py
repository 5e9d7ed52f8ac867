"""Proposals near the front."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from dirprune.study.shapes import TARGET
from dirprune.tuning.samplers.front import PRIOR, FrontSampler, weigh_gaps

SPACE = {
    TARGET: FloatDistribution(0.0, 1.0),
    "offset/a": FloatDistribution(-1.0, 1.0),
    "kept/b": IntDistribution(1, 64),
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "method": CategoricalDistribution(("magnitude", "taylor")),
}


def make_study(seed: int = 0) -> optuna.Study:
    """Two members of the front at targets 0.2 and 0.8; the dominated trials are near the first."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=FrontSampler(seed))
    rng = np.random.default_rng(1)
    for place in range(24):
        is_dear = place % 12 == 0
        params = {
            TARGET: 0.8 if is_dear else 0.2,
            "offset/a": float(rng.normal(0.3, 0.02)),
            "kept/b": int(rng.integers(20, 24)),
            "lr": 0.01,
            "method": "taylor",
        }
        values = [0.9, 0.8] if is_dear else [0.5 - 0.01 * place, 0.2]
        study.add_trial(create_trial(values=values, params=params, distributions=SPACE))
    return study


def ask(study: optuna.Study) -> dict:
    trial = study.ask()
    trial.suggest_float(TARGET, 0.0, 1.0)
    trial.suggest_float("offset/a", -1.0, 1.0)
    trial.suggest_int("kept/b", 1, 64)
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    if trial.suggest_categorical("method", ["magnitude", "taylor"]) == "magnitude":
        trial.suggest_categorical("magnitude.norm", ["l1", "l2"])
    return trial.params


def test_most_proposals_are_near_a_member_at_its_own_budget():
    study = make_study()
    found = [ask(study) for _ in range(200)]
    near = [
        params
        for params in found
        if min(abs(params[TARGET] - 0.2), abs(params[TARGET] - 0.8)) < 0.12
        and abs(params["offset/a"] - 0.3) < 0.2
    ]
    assert len(near) > 0.75 * len(found)
    assert any(params[TARGET] < 0.3 for params in near)
    assert any(params[TARGET] > 0.7 for params in near)
    assert len({tuple(params.values()) for params in found}) > 190


def test_some_proposals_come_from_the_space_alone():
    study = make_study()
    far = [params for params in (ask(study) for _ in range(400)) if abs(params["offset/a"] - 0.3) > 0.3]
    assert 0.4 * PRIOR < len(far) / 400 < 1.5 * PRIOR


def test_copies_of_the_only_member_are_changed_too():
    study = optuna.create_study(directions=["minimize"], sampler=FrontSampler(0))
    space = {"method": CategoricalDistribution(("magnitude", "taylor"))}
    for _ in range(12):
        study.add_trial(create_trial(values=[1.0], params={"method": "taylor"}, distributions=space))
    found = [study.ask().suggest_categorical("method", ["magnitude", "taylor"]) for _ in range(40)]
    assert found.count("magnitude") > 30


def test_members_in_large_gaps_are_drawn_more_often():
    losses = np.array([[0.0, 1.0], [0.1, 0.9], [0.2, 0.8], [1.0, 0.0]])
    weights = weigh_gaps(losses)
    # gaps 0.1, 0.2, 0.9, 0.8 in either objective, 4 in all; half of the weight is equal
    assert weights == pytest.approx([0.15, 0.175, 0.35, 0.325])
    assert weigh_gaps(losses * [1.0, 1000.0]) == pytest.approx(weights)
    assert weigh_gaps(losses[:1]).tolist() == [1.0]
    assert weigh_gaps(losses[[0, 0]]).tolist() == [0.5, 0.5]
