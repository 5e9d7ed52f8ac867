"""What a study may choose: every configuration is valid, described and reproduced."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest
import torch

from dirprune.cost import CostModel
from dirprune.errors import ArchitectureError, ConfigurationError, ImportanceError
from dirprune.networks import create_network
from dirprune.study.space import Choice, Configuration, Range, SearchSpace
from dirprune.tracing import find_groups

PARAMETERS = {
    "kept/conv1": 8,
    "kept/conv2": 9,
    "kept/linear1": 36,
    "kept/linear2": 17,
    "method": "magnitude",
    "magnitude.norm": "l2",
    "fine_tuning.lr": 0.004,
    "fine_tuning.batch_size": 64,
}
FINE_TUNING = {"lr": Range(1e-3, 1e-2, log=True), "batch_size": Choice((32, 64))}


@pytest.fixture(scope="module")
def grouping():
    return find_groups(create_network("lenet5"), torch.zeros(2, 1, 28, 28))


@pytest.fixture(scope="module")
def costs(grouping):
    return CostModel(create_network("lenet5"), grouping, torch.zeros(2, 1, 28, 28))


def test_parameters_become_a_configuration_that_survives_json(costs):
    space = SearchSpace(fine_tuning=FINE_TUNING)
    configuration = space.suggest(optuna.trial.FixedTrial(PARAMETERS), space.shapes(costs, {}), 7, "sampler")
    assert str(configuration.architecture) == "8-9-36-17"
    assert (configuration.method, configuration.method_options) == ("magnitude", {"norm": "l2"})
    assert configuration.fine_tuning == {"lr": 0.004, "batch_size": 64}
    assert Configuration.from_json(configuration.to_json()) == configuration


def test_no_group_is_ever_cut_below_the_smallest_keep_ratio(grouping, costs):
    space = SearchSpace(min_keep_ratio=0.25)
    assert [space.lowest(n) for n in (1, 2, 10, 20, 100)] == [1, 1, 3, 5, 25]
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for number in range(30):
        kept = space.suggest(study.ask(), space.shapes(costs, {}), number, "sampler").architecture
        assert all(space.lowest(n) <= kept[name] <= n for name, n in grouping.n_channels.items())


def test_uniform_trials_stay_within_the_space(grouping):
    space = SearchSpace(min_keep_ratio=0.5, uniform_keep_ratios=(0.75, 0.3))
    (dense, _), (source, cut), (_, clipped) = space.first_trials(grouping)
    assert dense == "dense"
    assert source == "uniform"
    assert list(cut.values()) == [8, 15, 75, 19]
    assert list(clipped.values()) == [5, 10, 50, 13]


def test_equal_first_trials_are_one(grouping):
    space = SearchSpace(
        min_keep_ratio=0.5, uniform_keep_ratios=(1.0, 0.5, 0.3), reference_architectures=("5,10,50,13",)
    )
    assert [source for source, _ in space.first_trials(grouping)] == ["dense", "uniform"]


def test_per_group_architectures_are_within_all_limits_and_as_they_were_drawn_where_they_can_be(costs):
    space = SearchSpace(min_keep_ratio=0.1)
    whole = space.shapes(costs, {})
    parameters = costs.costs({"conv1": 5, "conv2": 5, "linear1": 20, "linear2": 5}).parameters
    limited = space.shapes(costs, {"macs": 60_000.0, "parameters": parameters})
    rng = np.random.default_rng(0)
    n_kept = 0
    for _ in range(50):
        drawn = {name: int(rng.integers(space.lowest(n), n + 1)) for name, n in costs.n_channels.items()}
        drawn |= {"linear1": min(drawn["linear1"], 30)}
        trial = optuna.trial.FixedTrial({f"kept/{name}": width for name, width in drawn.items()})
        free, found = whole.suggest(trial), limited.suggest(trial)
        assert free == drawn
        is_within = costs.costs(free).macs <= 60_000 and costs.costs(free).parameters <= parameters
        assert (found == free) == is_within
        n_kept += is_within
        assert costs.costs(found).macs <= 60_000
        assert costs.costs(found).parameters <= parameters
        assert all(space.lowest(costs.n_channels[name]) <= found[name] <= free[name] for name in free)
    assert 0 < n_kept < 50


def test_uniform_trials_have_the_channel_multiple(grouping):
    space = SearchSpace(channel_multiple=8, uniform_keep_ratios=(0.5,))
    assert list(space.first_trials(grouping)[1][1].values()) == [8, 8, 48, 16]


def test_plain_choices_are_magnitude_and_the_middle_of_every_range():
    space = SearchSpace(fine_tuning={"lr": Range(1e-3, 1e-1, log=True), "batch_size": Choice((64, 32))})
    plain = {"method": "magnitude", "magnitude.norm": "l1", "fine_tuning.batch_size": 64}
    assert space.plain_choices() == {**plain, "fine_tuning.lr": pytest.approx(0.01)}
    other = SearchSpace(methods={"taylor": {}}, fine_tuning={"lr": Range(0.1, 0.5)})
    assert other.plain_choices() == {"method": "taylor", "fine_tuning.lr": pytest.approx(0.3)}


def test_reference_architectures_come_after_the_uniform_ones(grouping):
    space = SearchSpace(uniform_keep_ratios=(0.5,), reference_architectures=("8,9,36,17",))
    assert [source for source, _ in space.first_trials(grouping)] == ["dense", "uniform", "reference"]
    assert list(space.first_trials(grouping)[-1][1].values()) == [8, 9, 36, 17]
    narrow = SearchSpace(min_keep_ratio=0.5, reference_architectures=("8,9,36,17",))
    with pytest.raises(ConfigurationError, match="keeps 9 channels of conv2, the space 10 to 20;"):
        narrow.first_trials(grouping)
    with pytest.raises(ArchitectureError):
        SearchSpace(reference_architectures=("8,9",)).first_trials(grouping)


def test_restricted_space_keeps_the_options_of_its_methods():
    space = SearchSpace(methods={"magnitude": {"norm": ("l2",)}, "taylor": {}}, fine_tuning=FINE_TUNING)
    only = space.restricted(["magnitude", "random"])
    assert only.methods == {"magnitude": {"norm": ("l2",)}, "random": {}}
    assert only.fine_tuning == space.fine_tuning
    assert only.describe() != space.describe()
    assert SearchSpace(fine_tuning=FINE_TUNING).describe() == SearchSpace(fine_tuning=FINE_TUNING).describe()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"min_keep_ratio": 0.0}, ConfigurationError, r"keep ratio must be in \(0, 1\], got 0.0"),
        ({"uniform_keep_ratios": (50,)}, ConfigurationError, "got 50; 50% is 0.5"),
        ({"methods": {}}, ConfigurationError, "at least one importance method"),
        ({"methods": {"fischer": {}}}, ImportanceError, "did you mean 'fisher'"),
        ({"methods": {"magnitude": {"nrom": ("l1",)}}}, ImportanceError, "did you mean 'norm'"),
        (
            {"methods": {"magnitude": {"norm": ()}}},
            ConfigurationError,
            "option norm of magnitude needs at least",
        ),
        ({"fine_tuning": {"learning_rate": Range(0.1, 1)}}, ConfigurationError, "unknown fine-tuning"),
        ({"fine_tuning": {"images": Choice((600,))}}, ConfigurationError, "unknown fine-tuning"),
        (
            {"fine_tuning": {"batch_size": Choice((32, 0))}},
            ConfigurationError,
            "batch_size must be a whole number >= 1, got 0; 128 is the default",
        ),
        ({"fine_tuning": {"lr": Range(-1.0, 1.0)}}, ConfigurationError, "lr must be > 0, got -1.0"),
        ({"fine_tuning": {"momentum": Range(0.5, 1.0)}}, ConfigurationError, r"momentum must be in \[0, 1\)"),
        (
            {"fine_tuning": {"batch_size": Range(16, 64)}},
            ConfigurationError,
            r"batch_size takes no real number from a range, got 16 to 64; try Choice\(",
        ),
        (
            {"fine_tuning": {"batch_size": (32, 64)}},
            ConfigurationError,
            r"expected a Range or a Choice for batch_size, got \(32, 64\)",
        ),
    ],
)
def test_space_that_cannot_work_is_refused_when_it_is_made(changes, error, message):
    with pytest.raises(error, match=message):
        SearchSpace(**changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Range(-1, -2), r"lowest value to its highest, got -1 to -2; try Range\(-2, -1\)"),
        (lambda: Range(0, 1, log=True), "a logarithmic range must begin above 0, got 0; try 0.001"),
        (lambda: Range(0, math.inf), "a range needs two finite numbers, got 0 and inf"),
        (lambda: Range(math.nan, 1), "a range needs two finite numbers, got nan and 1"),
        (lambda: Range("1e-3", 1), "a range needs two finite numbers, got '1e-3' and 1"),
        (lambda: Choice(()), r"a tuple of at least one value, got \(\); try Choice\(\(32, 64\)\)"),
        (lambda: Choice(32), "a tuple of at least one value, got 32"),
        (lambda: Choice("adamw"), "a tuple of at least one value, got 'adamw'"),
    ],
)
def test_hyperparameter_without_a_value_to_draw_is_refused_in_one_line(make, message):
    with pytest.raises(ConfigurationError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_every_value_of_an_accepted_space_makes_a_recipe():
    space = SearchSpace(
        fine_tuning={
            "lr": Range(1e-3, 1e-3, log=True),
            "momentum": Range(0.0, 0.9),
            "patience": Choice((None, 3)),
            "optimizer": Choice(("adamw", "sgd")),
        }
    )
    assert space.describe()["fine_tuning"]["patience"] == [None, 3]
