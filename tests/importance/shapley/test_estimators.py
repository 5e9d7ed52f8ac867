"""Every estimator of Shapley values: right where the values can be worked out, and converging to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from scipy.stats import spearmanr

from dirprune.errors import ImportanceError
from dirprune.importance import create
from dirprune.importance.coalitions import open_values
from dirprune.importance.shapley import (
    ShapleyScorer,
    borders_first,
    compute_exact,
    default_evaluations,
    estimate_by_borders_first,
    estimate_by_kernel,
    estimate_by_ols,
    estimate_by_permutations,
    estimate_by_sizes,
    estimate_until_settled,
    estimate_with_shap,
)
from dirprune.importance.shapley.estimate import Estimate, Value, check_evaluations
from dirprune.importance.shapley.partial import list_sizes
from dirprune.importance.shapley.settling import largest_evaluations
from dirprune.importance.shapley.surrogate import Surrogate
from tests.importance.cases import make_context
from tests.importance.shapley.games import (
    Recorder,
    additive,
    gloves,
    root_mean_square,
    rugged,
    saturating,
    softmaxed,
    squared_size,
    unanimity,
)

CONVERGING = {
    "borders first": estimate_by_borders_first,
    "permutations": estimate_by_permutations,
    "kernel": estimate_by_kernel,
}
WITH_SHAP = {"shap kernel": partial(estimate_with_shap, explainer="kernel")}
SAMPLED = CONVERGING | {"ols": estimate_by_ols}

every_converging = pytest.mark.parametrize("name", CONVERGING)
every_sampled = pytest.mark.parametrize("name", SAMPLED)


def test_exact_values_of_games_worked_out_by_hand() -> None:
    np.testing.assert_allclose(compute_exact(gloves, 3).values, [2 / 3, 1 / 6, 1 / 6], atol=1e-12)
    np.testing.assert_allclose(compute_exact(unanimity([0, 2]), 4).values, [0.5, 0, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(compute_exact(additive([3, -1, 0]), 3).values, [3, -1, 0], atol=1e-12)
    np.testing.assert_allclose(compute_exact(squared_size, 5).values, [5.0] * 5, atol=1e-12)


def test_exact_values_over_several_blocks_equal_the_definition_by_gains() -> None:
    value, n = rugged(15, seed=0), 15
    numbers = np.arange(2**n)
    everything = value((numbers[:, None] >> np.arange(n) & 1).astype(bool))
    without = numbers[numbers & 1 == 0]
    gains = everything[without | 1] - everything[without]
    sizes = np.array([int(number).bit_count() for number in without])
    by_size = [gains[sizes == size].mean() for size in range(n)]
    np.testing.assert_allclose(compute_exact(value, n).values[0], np.mean(by_size), atol=1e-12)


@pytest.mark.parametrize("name", SAMPLED | WITH_SHAP)
def test_additive_games_are_solved_by_every_estimator(name: str) -> None:
    worths = [4.0, -1.0, 0.0, 0.5, 2.0, 2.0, 7.0, 1.0, 0.1]
    estimate = (SAMPLED | WITH_SHAP)[name](additive(worths), 9, 100, 0)
    np.testing.assert_allclose(estimate.values, worths, atol=1e-4)
    assert estimate.n_evaluations <= 100


@pytest.mark.parametrize("n_evaluations", [20, 22, 40, 150])
@pytest.mark.parametrize("name", ["borders first", "permutations", "kernel"])
def test_channels_that_are_alike_share_equally_and_everything(name: str, n_evaluations: int) -> None:
    estimate = CONVERGING[name](squared_size, 10, n_evaluations, 3)
    assert estimate.values.sum() == pytest.approx(100)
    if name == "borders first":
        np.testing.assert_allclose(estimate.values, 10, rtol=0.02)


@every_converging
def test_values_add_up_to_what_all_channels_are_worth(name: str) -> None:
    value = saturating(12, seed=1)
    both = value(np.array([[False] * 12, [True] * 12]))
    for n_evaluations in (24, 26, 90, 200):
        estimate = CONVERGING[name](value, 12, n_evaluations, 0)
        assert estimate.values.sum() == pytest.approx(both[1] - both[0])


@pytest.mark.parametrize("kind", [saturating, pytest.param(rugged, marks=pytest.mark.slow)])
@every_converging
def test_estimates_converge_to_the_exact_values(name: str, kind: object) -> None:
    errors = []
    for n_evaluations in (40, 130, 420, 512):
        found = []
        for seed in range(2):
            value = kind(9, seed)  # type: ignore[operator]
            exact = compute_exact(value, 9).values
            found.append(CONVERGING[name](value, 9, n_evaluations, seed).values - exact)
        errors.append(root_mean_square(np.array(found)))
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.7 * errors[1]
    assert errors[3] < 1e-12


@pytest.mark.parametrize("kind", [saturating, rugged])
def test_beyond_what_the_regression_takes_estimates_still_converge(
    kind: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(borders_first, "MAX_FITTED", 60)
    value = kind(10, 0)  # type: ignore[operator]
    exact = compute_exact(value, 10).values
    both = value(np.array([[False] * 10, [True] * 10]))
    errors = []
    for n_evaluations in (60, 300, 1023):
        estimate = estimate_by_borders_first(value, 10, n_evaluations, 0)
        assert estimate.values.sum() == pytest.approx(both[1] - both[0])
        errors.append(root_mean_square(estimate.values - exact))
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.1 * errors[0]


@pytest.mark.parametrize("n_channels", [5, 7])
def test_with_all_coalitions_the_regression_is_exact(n_channels: int) -> None:
    value = rugged(n_channels, 0)
    everything = np.array(list(itertools.product([False, True], repeat=n_channels)))
    ends = [everything[0], everything[-1]]
    coalitions = np.array([*ends, *sorted(everything[1:-1].tolist(), key=sum)])
    means, _ = Surrogate(coalitions, value(coalitions)).shapley()
    np.testing.assert_allclose(means, compute_exact(value, n_channels).values, atol=1e-8)


def test_residuals_of_many_channels_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(borders_first, "MAX_FITTED", 60)
    estimate = estimate_by_borders_first(additive([1.0] * 90), 90, 230, 0)
    np.testing.assert_allclose(estimate.values, 1.0, atol=1e-3)


@every_converging
def test_estimates_on_a_network_converge_to_its_exact_values(name: str) -> None:
    values = open_values(make_context(n_examples=48), "conv2")
    exact = compute_exact(values.evaluate, 6).values
    errors = [
        root_mean_square(CONVERGING[name](values.evaluate, 6, n_evaluations, 0).values - exact)
        for n_evaluations in (16, 50, 64)
    ]
    assert errors[2] < 1e-12
    assert errors[1] < 0.5 * exact.std()
    assert errors[1] < errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("explainer", ["kernel", "permutation"])
def test_explainers_of_shap_converge_to_the_exact_values(explainer: str) -> None:
    value = rugged(8, 0)
    exact = compute_exact(value, 8).values
    errors = [
        root_mean_square(estimate_with_shap(value, 8, n_evaluations, 0, explainer).values - exact)
        for n_evaluations in (40, 160, 2000)
    ]
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.4 * errors[1]


@pytest.mark.slow
def test_permutation_explainer_of_shap_solves_an_additive_game() -> None:
    worths = [4.0, -1.0, 0.5]
    estimate = estimate_with_shap(additive(worths), 3, 30, 0, "permutation")
    np.testing.assert_allclose(estimate.values, worths, atol=1e-6)


def test_shap_leaves_the_global_random_state_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    estimate_with_shap(saturating(10, 0), 10, 40, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # type: ignore[index]


@pytest.mark.slow
def test_borders_first_is_nearer_than_the_others_at_every_budget() -> None:
    games = [(n, seed, saturating(n, seed)) for n in (10, 16) for seed in range(2)]
    exact = {(n, seed): compute_exact(value, n).values for n, seed, value in games}
    for n_evaluations in (40, 150):
        errors = {
            name: np.mean(
                [
                    root_mean_square(run(value, n, n_evaluations, seed).values - exact[n, seed])
                    for n, seed, value in games
                ]
            )
            for name, run in (SAMPLED | WITH_SHAP).items()
        }
        assert min(errors, key=errors.__getitem__) == "borders first", errors


@pytest.mark.slow
def test_borders_first_orders_at_least_as_well_as_the_borders_alone() -> None:
    n, games = 12, range(3)
    exact = [compute_exact(softmaxed(n, game), n).values for game in games]

    def measure_order(run: Callable[[Value, int, int], Estimate]) -> float:
        found = [run(softmaxed(n, game), n, game).values for game in games]
        return float(np.mean([spearmanr(*pair).statistic for pair in zip(found, exact, strict=True)]))

    of_borders = measure_order(lambda value, n, _: estimate_by_sizes(value, n, 1))
    orders = [
        measure_order(lambda value, n, seed, budget=budget: estimate_by_borders_first(value, n, budget, seed))
        for budget in (2 * n + 2, 44, 250)
    ]
    assert min(orders) >= of_borders
    assert orders[-1] >= max(orders[0], 0.97)


def test_partial_sizes_of_the_gloves_worked_out_by_hand() -> None:
    np.testing.assert_allclose(estimate_by_sizes(gloves, 3, 1).values, [2 / 3, 1 / 6, 1 / 6], atol=1e-12)
    np.testing.assert_allclose(estimate_by_sizes(gloves, 3, 1, "yes").values, [1 / 3] * 3, atol=1e-12)
    np.testing.assert_allclose(estimate_by_sizes(gloves, 3, 1, "no").values, [1, 0, 0], atol=1e-12)


def test_partial_sizes_count_their_coalitions_and_become_exact() -> None:
    value = rugged(7, seed=2)
    for k, n_evaluations in ((1, 16), (2, 58), (3, 128), (7, 128)):
        assert estimate_by_sizes(value, 7, k).n_evaluations == n_evaluations
    exact = compute_exact(value, 7).values
    np.testing.assert_allclose(estimate_by_sizes(value, 7, 3).values, exact, atol=1e-9)
    assert np.abs(estimate_by_sizes(value, 7, 2).values - exact).max() > 0.01


def test_partial_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ImportanceError, match=r"k must be in 1 \.\. 3 for a group of 3 channels, got 4"):
        estimate_by_sizes(gloves, 3, 4)
    with pytest.raises(ImportanceError, match=r"k must give at most 1,048,576 coalitions, got 5"):
        estimate_by_sizes(gloves, 100, 5)


def test_too_many_channels_for_exact_values_say_the_count_and_what_to_use() -> None:
    with pytest.raises(ImportanceError, match=r"at most 20 channels, got 21, .* = 2\.1e\+06 .*shapley"):
        compute_exact(gloves, 21)
    with pytest.raises(ImportanceError, match=r"at most 20 channels, got 2048, which have 2\^2048 coal"):
        compute_exact(gloves, 2048)


def test_numbers_that_are_too_long_to_read_are_not_spelled_out() -> None:
    for call in (lambda: list_sizes(2048, 2000, "both"), lambda: check_evaluations(10**300, 2, 4)):
        with pytest.raises(ImportanceError, match="more than 1,000,000,") as caught:
            call()
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["kernel", "ols"])
def test_hardly_drawn_coalitions_are_not_waited_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirprune.importance.shapley.estimate.MOST_DRAWS", 300)
    found = SAMPLED[name](squared_size, 10, 1000, 0)
    assert 300 < found.n_evaluations < 1000


@pytest.mark.parametrize(
    ("name", "least"),
    [("borders first", 12), ("permutations", 11), ("kernel", 20), ("ols", 11), ("shap kernel", 22)],
)
def test_too_few_evaluations_say_how_many_it_takes(name: str, least: int) -> None:
    for n_evaluations in (0, least - 1):
        with pytest.raises(ImportanceError, match=f"at least {least} for a group of 10 channels"):
            (SAMPLED | WITH_SHAP)[name](squared_size, 10, n_evaluations, 0)
    assert (SAMPLED | WITH_SHAP)[name](squared_size, 10, least, 0).n_evaluations <= least


@pytest.mark.parametrize("name", SAMPLED | WITH_SHAP)
def test_more_evaluations_than_anybody_can_pay_are_refused_before_any(name: str) -> None:
    for n_channels in (4, 30):
        recorder = Recorder(squared_size)
        with pytest.raises(
            ImportanceError, match=r"evaluations must be at most 1,048,576, .* got 10,000,000,000,"
        ):
            (SAMPLED | WITH_SHAP)[name](recorder, n_channels, 10**19, 0)
        assert not recorder.asked


@pytest.mark.parametrize("seed", range(5))
def test_the_least_evaluations_of_the_kernel_determine_its_fit(seed: int) -> None:
    for worths in ([3.0, -1.0], [3.0, -1.0, 0.5]):
        n_channels = len(worths)
        found = estimate_by_kernel(additive(worths), n_channels, 2 * n_channels, seed).values
        np.testing.assert_allclose(found, worths, atol=1e-9)
        with pytest.raises(ImportanceError, match=f"at least {2 * n_channels} for a group of {n_channels}"):
            estimate_by_kernel(additive(worths), n_channels, 2 * n_channels - 1, seed)


def test_a_growing_budget_of_the_kernel_begins_with_enough_for_wide_groups() -> None:
    method = create("shapley-kernel", {"evaluations": "auto"})
    assert isinstance(method, ShapleyScorer)
    method._check(520)  # raises nothing


@pytest.mark.parametrize("name", SAMPLED | WITH_SHAP)
def test_a_single_channel_is_worth_the_difference(name: str) -> None:
    estimate = (SAMPLED | WITH_SHAP)[name](additive([2.5]), 1, 4, 0)
    np.testing.assert_allclose(estimate.values, [2.5], atol=1e-9)


@every_sampled
def test_larger_budgets_begin_with_the_coalitions_of_smaller_ones(name: str) -> None:
    asked = {}
    for n_evaluations in (24, 30, 100, 200):
        recorder = Recorder(saturating(12, seed=0))
        estimate = SAMPLED[name](recorder, 12, n_evaluations, 5)
        asked[n_evaluations] = list(recorder.asked)
        assert len(asked[n_evaluations]) == estimate.n_evaluations <= n_evaluations
    for few, many in ((24, 30), (30, 100), (100, 200)):
        assert asked[many][: len(asked[few])] == asked[few]
    assert len(asked[200]) > 170


def test_borders_first_spends_the_whole_budget_on_different_coalitions() -> None:
    for n, budgets in ((3, (5, 7)), (5, (20, 31)), (7, (16, 100, 127)), (12, (26, 4095))):
        for n_evaluations in budgets:
            recorder = Recorder(squared_size)
            if n_evaluations < 1000:
                estimate_by_borders_first(recorder, n, n_evaluations, 0)
            else:
                list(map(recorder, [coalitions_of(n, n_evaluations)]))
            assert len(recorder.asked) == n_evaluations


def coalitions_of(n: int, n_evaluations: int) -> np.ndarray:
    first = borders_first.border_coalitions(n, 0)
    rest = borders_first.list_coalitions(n, n_evaluations - len(first), squared_size(first), 0)
    return np.concatenate([first, rest])


@every_sampled
def test_seed_matters_and_reproduces(name: str) -> None:
    value = saturating(10, seed=0)
    first, again, other = (SAMPLED[name](value, 10, 60, seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_budget_that_ends_before_the_order_is_settled_says_so(caplog: pytest.LogCaptureFixture) -> None:
    n_channels, rng = 24, np.random.default_rng(0)

    def tell_nothing_apart(value: Value, n_channels: int, n_evaluations: int, seed: int) -> Estimate:
        return Estimate(rng.normal(size=n_channels), None, n_evaluations)

    estimate_until_settled(tell_nothing_apart, additive(range(n_channels)), n_channels, 0)
    assert "it is not settled which of 24 channels stay" in caplog.text
    caplog.clear()
    estimate_until_settled(estimate_by_borders_first, additive(range(n_channels)), n_channels, 0)
    assert caplog.text == ""


@pytest.mark.parametrize("name", CONVERGING)
def test_budget_grows_until_the_order_around_the_cut_is_settled(name: str) -> None:
    easy = Recorder(additive([5.0] * 6 + [0.0] * 6))
    settled = estimate_until_settled(CONVERGING[name], easy, 12, 0, cut=0.5)
    assert set(np.argsort(-settled.values)[:6]) == set(range(6))
    assert settled.n_evaluations <= 4 * default_evaluations(12)
    hard = estimate_until_settled(CONVERGING[name], rugged(9, seed=0), 9, 0, cut=0.5)
    exact = compute_exact(rugged(9, seed=0), 9).values
    assert hard.n_evaluations > settled.n_evaluations or np.allclose(hard.values, exact)


def test_budget_that_grows_ends_with_all_coalitions() -> None:
    everything = estimate_until_settled(estimate_by_borders_first, squared_size, 4, 0)
    assert everything.n_evaluations == 16
    single = estimate_until_settled(estimate_by_borders_first, additive([1.5]), 1, 0)
    assert single.values == pytest.approx(1.5)


def test_budget_that_grows_becomes_all_coalitions_from_half_of_them_on() -> None:
    for n_channels, value in ((6, rugged(6, 0)), (9, rugged(9, 0))):
        budgets = []

        def note(
            value: Value, n_channels: int, n_evaluations: int, seed: int, budgets: list = budgets
        ) -> Estimate:
            budgets.append(n_evaluations)
            return estimate_by_kernel(value, n_channels, n_evaluations, seed)

        found = estimate_until_settled(note, value, n_channels, 0)
        assert not any(2**n_channels / 2 <= budget < 2**n_channels for budget in budgets)
        assert budgets[-1] <= largest_evaluations(n_channels) == 2**n_channels
        if n_channels == 6:
            assert budgets == [64]
            np.testing.assert_allclose(found.values, compute_exact(value, 6).values, atol=1e-12)
