"""The regression behind `shapley` takes little more memory than its one matrix, and says what it takes."""

from __future__ import annotations

import logging
import tracemalloc

import numpy as np
import pytest

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext
from dirprune.importance.shapley import borders_first, methods, surrogate
from dirprune.importance.shapley.borders_first import count_fitted
from dirprune.importance.shapley.estimate import Estimate, Value
from dirprune.importance.shapley.sequence import border_coalitions, list_coalitions
from dirprune.importance.shapley.settling import Estimator, default_evaluations, largest_evaluations
from dirprune.importance.shapley.surrogate import Surrogate, count_bytes
from tests.importance.cases import linear_case, score
from tests.importance.shapley.games import saturating


def make_case(n_channels: int, n_inner: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the borders and other coalitions of a game like a network, and their values."""
    value, borders = saturating(n_channels, 0), border_coalitions(n_channels, 0)
    coalitions = np.concatenate([borders, list_coalitions(n_channels, n_inner, value(borders), 0)])
    return coalitions, value(coalitions)


def test_peak_is_one_matrix_the_coalitions_and_some_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surrogate, "BLOCK", 1 << 15)
    monkeypatch.setattr(
        surrogate, "N_FITTED", (60, 60)
    )  # which takes some MiB however many coalitions follow
    coalitions, values = make_case(300, 700)
    Surrogate(*make_case(8, 20)).shapley()  # imports what it imports late, which is no memory of its own
    tracemalloc.start()
    try:
        found = Surrogate(coalitions, values)
        found.shapley()
        found.predict(coalitions[2:])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    n_bytes = count_bytes(*coalitions.shape)
    assert n_bytes < 1.5 * 8 * len(coalitions) ** 2
    assert 0.5 * n_bytes < peak < 1.1 * n_bytes


def test_size_of_blocks_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    coalitions, values = make_case(20, 100)
    found = []
    for block in (1 << 20, 1000, 1):
        monkeypatch.setattr(surrogate, "BLOCK", block)
        one = Surrogate(coalitions, values)
        found.append([*one.shapley(), one.predict(coalitions[2:])])
    for other in found[1:]:
        for left, right in zip(found[0], other, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-7)


def test_inverse_takes_the_place_of_the_matrix() -> None:
    matrix = np.array([[2.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 4.0]])
    expected = np.linalg.inv(matrix)
    inverse = surrogate._invert_(matrix)
    assert np.shares_memory(inverse, matrix)
    np.testing.assert_allclose(inverse, expected)
    with pytest.raises(np.linalg.LinAlgError):
        surrogate._invert_(np.zeros((2, 2)))


def with_memory(memory_mb: int) -> ScoringContext:
    context = linear_case(np.linspace(1, 2, 120).tolist(), n_examples=8)
    return ScoringContext(**{**vars(context), "memory_mb": memory_mb, "said": set()})


def test_more_than_the_allowed_memory_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        score("shapley", with_memory(64), {"evaluations": 300})
        assert caplog.messages == []
        score("shapley", with_memory(2), {"evaluations": 300})
    (message,) = caplog.messages
    assert message.startswith("shapley on 0: its regression takes about 6 MiB, 2 are allowed; ")


def test_auto_is_taken_at_the_largest_regression_that_it_may_come_to(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settle_at_once(estimator: Estimator, value: Value, n: int, seed: int, *_: object) -> Estimate:
        return estimator(value, n, 2 * n + 2, seed)

    monkeypatch.setattr(methods, "estimate_until_settled", settle_at_once)
    usual = count_bytes(count_fitted(default_evaluations(120), 120), 120) >> 20
    with caplog.at_level(logging.WARNING):
        score("shapley", with_memory(usual + 1), {"evaluations": "auto"})
    assert caplog.messages[0].startswith("shapley on 0: its regression takes about ")
    assert largest_evaluations(120) > default_evaluations(120)


def test_a_machine_without_the_memory_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_out(*_: object) -> None:
        raise MemoryError("Unable to allocate 501. MiB for an array with shape (8104, 8104)")

    monkeypatch.setattr(borders_first, "Surrogate", run_out)
    with pytest.raises(
        ImportanceError,
        match=r"^Shapley values of 0: expected memory for an estimate of 120 channels, got out of memory;",
    ):
        score("shapley", with_memory(64), {"evaluations": 300})
