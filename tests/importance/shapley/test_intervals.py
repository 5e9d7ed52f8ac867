"""95% intervals: how often they hold the exact values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dirprune.importance.coalitions import open_values
from dirprune.importance.shapley import (
    compute_exact,
    estimate_by_borders_first,
    estimate_by_permutations,
)
from dirprune.importance.shapley.estimate import quantile_of_student
from dirprune.importance.shapley.settling import default_evaluations
from tests.importance.cases import make_context
from tests.importance.shapley.games import Recorder, additive, saturating, unanimity
from tests.importance.shapley.test_estimators import CONVERGING, every_converging


def measure_coverage(name: str, value: object, n: int, n_evaluations: int, seeds: range) -> float:
    exact = compute_exact(value, n).values  # type: ignore[arg-type]
    held = []
    for seed in seeds:
        estimate = CONVERGING[name](value, n, n_evaluations, seed)  # type: ignore[arg-type]
        assert estimate.half_widths is not None
        assert (estimate.half_widths >= 0).all()
        held.append(np.abs(estimate.values - exact) <= estimate.half_widths + 1e-12)
    return float(np.mean(held))


@pytest.mark.parametrize("n_evaluations", [80, pytest.param(120, marks=pytest.mark.slow)])
@every_converging
def test_intervals_cover_the_values_of_games_like_networks(name: str, n_evaluations: int) -> None:
    covered = [
        measure_coverage(name, saturating(9, game), 9, n_evaluations, range(game, game + 2))
        for game in range(8)
    ]
    assert np.mean(covered) >= 0.9


@pytest.mark.slow
def test_intervals_of_shapley_cover_the_values_at_the_default_budget() -> None:
    n = 16
    held, widths = [], []
    for game in range(12):
        value = saturating(n, game)
        exact = compute_exact(value, n).values
        estimate = estimate_by_borders_first(value, n, default_evaluations(n), game)
        assert estimate.half_widths is not None
        held.append(np.abs(estimate.values - exact) <= estimate.half_widths)
        widths.append(estimate.half_widths.mean() / exact.std())
    assert np.mean(held) >= 0.9
    assert np.mean(widths) < 0.15  # that they cover is worth something


@every_converging
def test_intervals_cover_the_values_of_a_network(name: str) -> None:
    values = open_values(make_context(n_examples=48), "linear1")
    table: dict[bytes, float] = {}

    def value(coalitions: np.ndarray) -> np.ndarray:
        unknown = [row for row in coalitions if row.tobytes() not in table]
        if unknown:
            table.update(
                zip((row.tobytes() for row in unknown), values.evaluate(np.array(unknown)), strict=True)
            )
        return np.array([table[row.tobytes()] for row in coalitions])

    assert measure_coverage(name, value, 8, 100, range(10)) >= 0.9


@every_converging
def test_intervals_are_missing_where_nothing_tells_them(name: str) -> None:
    n_evaluations = 20 if name == "kernel" else 13
    assert CONVERGING[name](saturating(10, 0), 10, n_evaluations, 0).half_widths is None


@every_converging
def test_intervals_narrow_with_the_budget(name: str) -> None:
    value = saturating(14, 0)
    few, many = (CONVERGING[name](value, 14, n_evaluations, 0).half_widths for n_evaluations in (130, 800))
    assert few is not None
    assert many is not None
    assert many.mean() < 0.6 * few.mean()


def test_intervals_of_a_game_without_interactions_are_narrow() -> None:
    recorder = Recorder(additive(np.arange(10.0).tolist()))
    for run in CONVERGING.values():
        half_widths = run(recorder, 10, 100, 0).half_widths
        assert half_widths is not None
        assert half_widths.max() < 1e-2


@pytest.mark.parametrize("degrees", [1, 1.5, 2, 2.9, 3, 4.5, 30])
def test_quantiles_of_student_are_right_from_three_degrees_on_and_never_too_small(degrees: float) -> None:
    excess = quantile_of_student(degrees) / stats.t.ppf(0.975, degrees) - 1
    assert -0.01 < excess < (0.01 if degrees >= 3 or degrees in (1, 2) else 2)


def test_intervals_of_permutations_have_no_width_where_no_order_shows_a_change() -> None:
    n = 12
    estimate = estimate_by_permutations(unanimity([0, 1, 2, 3, 4, 5, 6, 7]), n, 100, seed=0)
    unseen = estimate.values == 0
    assert unseen[8:].all()
    assert unseen[:8].any()  # worth 1/8 each
    assert (estimate.half_widths[unseen] == 0).all()  # type: ignore[index]
