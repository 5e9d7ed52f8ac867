"""Which networks are surely slower than others."""

from __future__ import annotations

from dirprune.latency import Latency
from dirprune.records.latency import Timed, find_beaten


def timed(trial: int | None, accuracy: float, low: float, high: float) -> Timed:
    return Timed(trial, {"val_accuracy": accuracy}, Latency((low + high) / 2, low, high))


def test_a_network_is_beaten_only_beyond_both_spreads() -> None:
    networks = [timed(1, 0.90, 1.0, 1.2), timed(2, 0.90, 1.1, 1.5), timed(3, 0.89, 1.3, 1.6)]
    assert find_beaten(networks) == {3: 1}


def test_a_more_accurate_network_is_never_beaten_and_the_dense_one_does_not_compete() -> None:
    networks = [timed(None, 1.0, 0.1, 0.1), timed(1, 0.90, 1.0, 1.0), timed(2, 0.95, 9.0, 9.0)]
    assert find_beaten(networks) == {}
