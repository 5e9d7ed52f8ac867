"""What `auto` picks."""

from __future__ import annotations

import pytest
import torch

from dirprune.cost import CostModel
from dirprune.networks import create_network
from dirprune.study.objectives import Objective
from dirprune.study.space import Choice, Range, SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tracing import find_groups
from dirprune.tuning.samplers.choice import Budget, choose_sampler, count_parameters

EXAMPLES = {"lenet5": (2, 1, 28, 28), "resnet20": (2, 3, 32, 32)}


def open_space(network: str = "lenet5", **options):
    model, example = create_network(network).eval(), torch.zeros(*EXAMPLES[network])
    space = SearchSpace(**options)
    return space, space.shapes(CostModel(model, find_groups(model, example), example), {})


def choose(
    choice: str, n_trials: int, network: str = "lenet5", kind: str = "per-group", n_given: int = 3, **changes
):
    space, shapes = open_space(network, architectures=kind)
    spec = StudySpec("study", network, "digits", space=space, trials=n_trials, **changes)
    return choose_sampler(choice, spec, shapes, Budget(n_trials, n_given, images=6000))


def test_parameters_with_one_value_do_not_count():
    assert count_parameters(*open_space(methods={"taylor": {}})) == 4
    assert count_parameters(*open_space(methods={"taylor": {}}, architectures="budgeted")) == 5
    assert count_parameters(*open_space()) == 4 + 1 + 1  # a method, and an option of the first one
    free = {"lr": Range(0.001, 0.1, log=True), "momentum": Choice((0.9,))}
    assert count_parameters(*open_space(methods={"taylor": {}}, fine_tuning=free)) == 5


@pytest.mark.parametrize(
    ("network", "kind", "n_trials", "picked"),
    [
        ("lenet5", "per-group", 100, "ehvi"),
        ("lenet5", "per-group", 10, "ehvi"),
        ("lenet5", "per-group", 8, "random"),
        ("lenet5", "budgeted", 100, "front"),
        ("lenet5", "budgeted", 15, "tpe"),
        ("resnet20", "per-group", 100, "ehvi"),
        ("resnet20", "budgeted", 100, "tpe"),
    ],
)
def test_auto_picks_by_parameters_and_trials_and_says_why(network, kind, n_trials, picked):
    name, why = choose("auto", n_trials, network, kind)
    assert name == picked
    assert why.startswith(f"sampler {picked}: ")
    assert f"{n_trials} trials" in why


def test_chosen_sampler_is_taken():
    assert choose("gp", 100) == ("gp", "sampler gp, as chosen")


def test_without_a_cost_among_the_objectives_nothing_is_known_before_a_trial():
    errors = {"objectives": (Objective("val_error", "minimize"),), "reference_point": {"val_error": 1.0}}
    assert choose("auto", 100, **errors)[0] == "front"


def test_where_nothing_is_left_to_choose_auto_says_so():
    name, why = choose("auto", 20, n_given=20)
    assert name == "random"
    assert "none is left to choose" in why
    assert choose("auto", 20, n_given=19)[0] == "ehvi"


@pytest.mark.parametrize("halving", ["none", "stopping"])
def test_a_chosen_sampler_without_a_trial_to_choose_says_so(halving):
    name, why = choose("nsga2", 20, n_given=20, halving=halving)
    assert name == "nsga2"
    assert why.startswith("sampler nsga2, as chosen: 20 trials of ")
    assert "none is left to choose" in why
    assert ("only what a sampler chooses is halted" in why) == (halving == "stopping")


def test_the_line_names_the_whole_budget():
    spec_space, shapes = open_space()
    spec = StudySpec("study", "lenet5", "digits", space=spec_space, trials=40)
    _, why = choose_sampler("auto", spec, shapes, Budget(40, 3, images=6000, time_limit_s=900.0))
    assert "40 trials of 6,000 images or 900 s" in why
