"""Which networks are not on the front of accuracy and measured latency."""

from __future__ import annotations

from dirprune.latency import Latency
from dirprune.records.latency import Timed, find_beaten
from dirprune.study.objectives import Objective

OBJECTIVES = [Objective("val_accuracy", "maximize")]


def timed(trial: int | None, accuracy: float, low: float, high: float) -> Timed:
    return Timed(trial, {"val_accuracy": accuracy}, Latency((low + high) / 2, low, high))


def test_a_network_is_slower_only_beyond_both_spreads() -> None:
    networks = [timed(1, 0.90, 1.0, 1.2), timed(2, 0.90, 1.1, 1.5), timed(3, 0.89, 1.3, 1.6)]
    assert find_beaten(networks, OBJECTIVES) == {3: 1}


def test_a_network_as_fast_as_a_more_accurate_one_is_beaten() -> None:
    networks = [timed(1, 0.90, 1.0, 1.2), timed(2, 0.91, 1.1, 1.5), timed(3, 0.80, 0.5, 0.9)]
    assert find_beaten(networks, OBJECTIVES) == {1: 2}


def test_a_more_accurate_network_is_never_beaten_and_the_dense_one_does_not_compete() -> None:
    networks = [timed(None, 1.0, 0.1, 0.1), timed(1, 0.90, 1.0, 1.0), timed(2, 0.95, 9.0, 9.0)]
    assert find_beaten(networks, OBJECTIVES) == {}


def test_without_an_objective_of_validation_none_is_beaten() -> None:
    assert find_beaten([timed(1, 0.9, 1.0, 1.0), timed(2, 0.9, 2.0, 2.0)], []) == {}
