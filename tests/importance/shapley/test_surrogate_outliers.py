"""The regression behind `shapley` on games where one coalition or one channel stands out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from dirprune.importance.shapley import estimate_by_borders_first

N = 30
WEIGHTS = np.random.default_rng(0).normal(size=N) / N**0.5


def jump_at_full(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    return 0.1 * coalitions @ WEIGHTS + 1.0 * coalitions.all(1)


def jump_at_empty(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    return 0.1 * coalitions @ WEIGHTS - 100.0 * ~coalitions.any(1)


def one_channel_does_all(coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
    return coalitions[:, 0].astype(float)


@pytest.mark.parametrize(
    ("game", "exact", "tolerance"),
    [
        (jump_at_full, 0.1 * WEIGHTS + 1 / N, 2e-3),
        (jump_at_empty, 0.1 * WEIGHTS + 100 / N, 2e-3),
        (one_channel_does_all, np.eye(N)[0], 1e-3),
    ],
)
def test_what_stands_out_does_not_spoil_the_others(
    game: Callable[[NDArray[np.bool_]], NDArray[np.float64]], exact: NDArray[np.float64], tolerance: float
) -> None:
    estimate = estimate_by_borders_first(game, N, 4 * N + 100, seed=0)
    np.testing.assert_allclose(estimate.values, exact, atol=tolerance)
    assert estimate.half_widths is not None
    assert (np.abs(estimate.values - exact) <= estimate.half_widths + 1e-4).mean() >= 0.9
