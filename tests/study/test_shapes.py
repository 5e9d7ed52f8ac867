"""Numbers become architectures within limits, and architectures the numbers that a sampler learns from."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dirprune.architecture import Architecture
from dirprune.cost import CostModel
from dirprune.errors import ConfigurationError
from dirprune.networks import create_network
from dirprune.study.space import SearchSpace
from dirprune.tracing import find_groups

DENSE = 498_750


@pytest.fixture(scope="module")
def costs():
    network, example = create_network("lenet5"), torch.zeros(2, 1, 28, 28)
    return CostModel(network, find_groups(network, example), example)


def draw(
    space: SearchSpace, costs: CostModel, n_trials: int, limits: dict | None = None
) -> list[Architecture]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    shapes = space.shapes(costs, limits or {})
    return [space.suggest(study.ask(), shapes, n, "sampler").architecture for n in range(n_trials)]


def test_budgeted_architectures_are_spread_evenly_over_the_costs(costs) -> None:
    shares = {}
    for kind in ("per-group", "budgeted"):
        drawn = draw(SearchSpace(architectures=kind), costs, 200)
        shares[kind] = np.array([costs.costs(kept).macs for kept in drawn]) / DENSE
    counts = np.histogram(shares["budgeted"], bins=4, range=(0, 1))[0]
    assert counts.min() > 30
    assert np.histogram(shares["per-group"], bins=4, range=(0, 1))[0].min() < 15


def test_nothing_that_is_drawn_from_a_budget_is_above_the_limit(costs) -> None:
    drawn = draw(SearchSpace(architectures="budgeted"), costs, 100, {"macs": 150_000})
    macs = [costs.costs(kept).macs for kept in drawn]
    assert max(macs) <= 150_000
    assert max(macs) > 140_000


@pytest.mark.parametrize("kind", ["per-group", "budgeted"])
def test_channel_multiples_hold_in_every_space(costs, kind) -> None:
    for kept in draw(SearchSpace(architectures=kind, channel_multiple=4), costs, 30):
        assert all(n % 4 == 0 or n == costs.n_channels[name] for name, n in kept.items()), kept


@pytest.mark.parametrize("kind", ["per-group", "budgeted"])
def test_a_group_of_fewer_channels_than_the_multiple_stays_whole(costs, kind) -> None:
    for kept in draw(SearchSpace(architectures=kind, channel_multiple=16), costs, 10):
        assert kept["conv1"] == 10
        assert kept["conv2"] in (16, 20)


@pytest.mark.parametrize(("n_channels", "least"), [(6, 6), (8, 8), (10, 8), (64, 8), (128, 16), (2048, 208)])
def test_least_width_is_a_multiple_or_the_whole_group(n_channels, least) -> None:
    space = SearchSpace(channel_multiple=8, min_keep_ratio=0.1)
    assert space.lowest(n_channels) == least
    assert SearchSpace(min_keep_ratio=0.1).lowest(n_channels) == -(-n_channels // 10)


class InParts(nn.Module):
    """64 channels that go through what couples them, then 20 that go alone."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(1, 64, 1), between
        self.second, self.last = nn.Conv2d(64, 20, 1), nn.Conv2d(20, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.second(self.between(self.first(images)).relu()).relu())


@pytest.mark.parametrize("between", [nn.Conv2d(64, 64, 3, groups=8), nn.GroupNorm(8, 64)])
@pytest.mark.parametrize(
    ("multiple", "allowed"),
    [(1, set(range(1, 9))), (4, set(range(1, 9))), (12, {3, 6, 8}), (16, {2, 4, 6, 8})],
)
@pytest.mark.parametrize("kind", ["per-group", "budgeted"])
def test_multiples_count_channels_where_they_go_in_parts(between, multiple, allowed, kind) -> None:
    network, example = InParts(between).eval(), torch.zeros(2, 1, 5, 5)
    costs = CostModel(network, find_groups(network, example), example)
    assert costs.n_channels == {"first": 8, "second": 20}
    drawn = draw(SearchSpace(architectures=kind, channel_multiple=multiple), costs, 60)
    assert {kept["first"] for kept in drawn} == allowed
    assert all(kept["second"] % multiple == 0 or kept["second"] == 20 for kept in drawn)
    space = SearchSpace(channel_multiple=multiple, uniform_keep_ratios=(0.4, 0.9))
    uniform = [kept for _, kept in space.first_trials(find_groups(network, example))]
    assert {kept["first"] for kept in uniform} <= allowed


class Scores:
    """Made-up scores of two methods."""

    def __init__(self, costs: CostModel, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.by_method = {
            method: {name: rng.gamma(0.5, 1.0, n).tolist() for name, n in costs.n_channels.items()}
            for method in ("fisher", "taylor")
        }

    def scores_of(self, method, options):
        return self.by_method[method]

    def typical(self):
        return self.by_method["fisher"]


RANKED = {"methods": {"fisher": {}, "taylor": {}}, "architectures": "ranked"}
OFFSETS = st.lists(st.floats(-1.0, 1.0), min_size=4, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.floats(0, 1), st.floats(0, 1), OFFSETS, st.sampled_from([1, 4]))
def test_ranked_architectures_grow_with_the_target_within_limits_and_multiples(
    costs, seed, first, second, offsets, multiple
) -> None:
    space = SearchSpace(channel_multiple=multiple, **RANKED)
    shapes = space.shapes(costs, {"macs": 300_000.0}, Scores(costs, seed))
    span = shapes.high - shapes.low
    given = {f"offset/{name}": offset for name, offset in zip(costs.n_channels, offsets, strict=True)}
    macs = []
    for share in sorted((first, second)):
        params = {"target": shapes.low + share * span, "method": "taylor", **given}
        kept = space.suggest(optuna.trial.FixedTrial(params), shapes, 0, "sampler").architecture
        macs.append(costs.costs(kept).macs)
        assert all(n % multiple == 0 or n == costs.n_channels[name] for name, n in kept.items()), kept
    assert macs[0] <= macs[1] <= 300_000


def test_the_scores_of_the_trials_method_shape_the_architecture(costs) -> None:
    space, scores = SearchSpace(**RANKED), Scores(costs, 0)
    falling = {name: np.linspace(2, 0.1, n).tolist() for name, n in costs.n_channels.items()}
    scores.by_method = {"fisher": falling, "taylor": {**falling, "conv1": [1.0] * 2 + [0.001] * 8}}
    shapes = space.shapes(costs, {}, scores)
    params = {"target": 0.2, **{f"offset/{name}": 0.0 for name in costs.n_channels}}
    kept = {
        method: space.suggest(
            optuna.trial.FixedTrial({**params, "method": method}), shapes, 0, "sampler"
        ).architecture
        for method in ("taylor", "fisher")
    }
    assert kept["taylor"]["conv1"] < kept["fisher"]["conv1"]
    tilted = [
        space.suggest(
            optuna.trial.FixedTrial({**params, "offset/linear1": offset, "method": "taylor"}),
            shapes,
            0,
            "sampler",
        ).architecture
        for offset in (-1.0, 1.0)
    ]
    assert tilted[0]["linear1"] < tilted[1]["linear1"]


@pytest.mark.parametrize("text", ["8,9,36,17", "10,20,100,25", "3,5,25,7"])
def test_parameters_of_an_architecture_lead_back_near_its_cost_in_a_ranked_space(costs, text) -> None:
    kept = Architecture(dict(zip(costs.n_channels, map(int, text.split(",")), strict=True)))
    space = SearchSpace(max_offset=2.0, **RANKED)
    shapes = space.shapes(costs, {}, Scores(costs, 1))
    params = {"method": "fisher", **shapes.parameters(kept)}
    found = space.suggest(optuna.trial.FixedTrial(params), shapes, 0, "sampler").architecture
    assert abs(costs.costs(found).macs - costs.costs(kept).macs) < 0.05 * DENSE
    assert all(abs(found[name] - kept[name]) <= max(3, 0.3 * n) for name, n in costs.n_channels.items())


def test_methods_without_scores_are_refused_in_a_ranked_space() -> None:
    with pytest.raises(
        ConfigurationError, match="ranked architectures need scores of channels, which greedy"
    ):
        SearchSpace(methods={"greedy": {}}, architectures="ranked")


@pytest.mark.parametrize("text", ["8,9,36,17", "10,20,100,25", "3,5,25,7", "2,20,100,25"])
def test_parameters_of_an_architecture_lead_back_near_it(costs, text) -> None:
    names = list(costs.n_channels)
    kept = Architecture(dict(zip(names, map(int, text.split(",")), strict=True)))
    exact = SearchSpace().shapes(costs, {})
    assert exact.suggest(optuna.trial.FixedTrial(exact.parameters(kept))) == kept
    budgeted = SearchSpace(architectures="budgeted", max_offset=2.0).shapes(costs, {})
    found = budgeted.suggest(optuna.trial.FixedTrial(budgeted.parameters(kept)))
    assert abs(costs.costs(found).macs - costs.costs(kept).macs) < 0.05 * DENSE
    assert all(abs(found[name] - kept[name]) <= max(2, 0.25 * costs.n_channels[name]) for name in names)


def test_a_given_architecture_is_taken_exactly(costs) -> None:
    space = SearchSpace(architectures="budgeted", methods={"random": {}})
    shapes = space.shapes(costs, {"macs": 100_000})
    given = Architecture({"conv1": 7, "conv2": 3, "linear1": 100, "linear2": 1})
    study = optuna.create_study()
    study.enqueue_trial(shapes.parameters(given))
    configuration = space.suggest(study.ask(), shapes, 0, "reference", given)
    assert configuration.architecture == given
    assert configuration.source == "reference"


@pytest.mark.parametrize("kind", ["per-group", "budgeted"])
def test_a_limit_that_nothing_meets_names_the_reachable_range(costs, kind) -> None:
    space = SearchSpace(architectures=kind, min_keep_ratio=0.5)
    with pytest.raises(ConfigurationError, match=r"can be from 1\d\d,\d{3} to 498,750 in this space, got a"):
        space.shapes(costs, {"macs": 10})


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        ({}, "a higher one, or a smaller share of each group than 0.1 (--min-keep-ratio)"),
        ({"min_keep_ratio": 0.01}, "a higher one"),
        (
            {"channel_multiple": 16},
            "a higher one, or a smaller channel multiple than 16 (--channel-multiple)",
        ),
        (
            {"channel_multiple": 2, "min_keep_ratio": 0.35},
            "a higher one, or a smaller share of each group than 0.35 (--min-keep-ratio), "
            "or a smaller channel multiple than 2 (--channel-multiple)",
        ),
        (
            {"channel_multiple": 99, "min_keep_ratio": 0.99},
            "a higher one, or a smaller share of each group than 0.99 (--min-keep-ratio) together with "
            "a smaller channel multiple than 99 (--channel-multiple)",
        ),
    ],
)
def test_a_limit_that_nothing_meets_is_answered_with_what_would_help(costs, space, advice) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SearchSpace(**space).shapes(costs, {"macs": 10})
    assert str(raised.value).endswith(f"got a limit of 10; try {advice}")


@pytest.mark.parametrize(
    ("space", "advice"),
    [
        ({"channel_multiple": 256}, "a smaller channel multiple than 256 (--channel-multiple)"),
        ({"min_keep_ratio": 1.0}, "a smaller share of each group than 1 (--min-keep-ratio)"),
        (
            {"channel_multiple": 256, "min_keep_ratio": 1.0},
            "a smaller share of each group than 1 (--min-keep-ratio) together with "
            "a smaller channel multiple than 256 (--channel-multiple)",
        ),
    ],
)
def test_a_space_in_which_every_group_stays_whole_is_refused(costs, space, advice) -> None:
    with pytest.raises(ConfigurationError) as raised:
        SearchSpace(**space).shapes(costs, {})
    expected = (
        "expected a space in which some group can be cut, got one in which all of them stay whole; try "
    )
    assert str(raised.value) == expected + advice


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": "budget"}, "did you mean 'budgeted'"),
        ({"cost": "mac"}, "did you mean 'macs'"),
        ({"max_offset": 0.0}, "max_offset must be above 0"),
        ({"channel_multiple": 0}, "channel multiple must be at least 1"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SearchSpace(**changes)
