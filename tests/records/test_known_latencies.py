"""Which latencies count as known, and how new ones are found beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from dirprune.files import write_json
from dirprune.identity import digest
from dirprune.latency import Latency
from dirprune.records.known_latencies import DENSE, SCHEMA, LatencyCache, find_latencies

SETTING: dict[str, str | int] = {"machine": "here", "passes": 50}
ROUNDS = {**SETTING, "rounds": 10}


class Device:
    """Takes a millisecond for each channel and 100 for the dense network, times its pace."""

    def __init__(self, pace: float = 1.0) -> None:
        self.pace = pace
        self.timed: list[tuple[int, ...]] = []

    def __call__(self, architectures: Sequence[tuple[int, ...]]) -> list[Latency]:
        self.timed += architectures
        taken = [self.pace * (sum(each) or 100) for each in architectures]
        return [Latency(ms, 0.95 * ms, 1.05 * ms) for ms in taken]


def test_what_was_measured_without_rounds_is_not_known(tmp_path: Path) -> None:
    path = tmp_path / "latencies.json"
    old = {digest(SETTING, []): {"median_ms": 1.0, "low_ms": 1.0, "high_ms": 1.0}}
    write_json(path, {"latencies": old}, SCHEMA)
    assert LatencyCache(path, SETTING).get(DENSE) is not None
    cache, device = LatencyCache(path, ROUNDS), Device()
    found = find_latencies([DENSE, (4, 8)], cache, device)
    assert (found.n_known, found.pace) == (0, None)
    assert device.timed == [DENSE, (4, 8)]
    assert LatencyCache(path, ROUNDS).get((4, 8)) == found.latencies[4, 8]


def test_the_quartiles_of_a_new_network_hold_the_pace_at_which_the_others_were_measured(
    tmp_path: Path,
) -> None:
    path = tmp_path / "latencies.json"
    first = find_latencies([DENSE, (10,)], LatencyCache(path, ROUNDS), Device())
    device = Device(pace=0.92)
    found = find_latencies([DENSE, (10,), (4, 6)], LatencyCache(path, ROUNDS), device)
    assert device.timed == [DENSE, (4, 6)]
    assert found.n_known == 2
    assert found.pace == 0.92
    assert {**found.latencies, (4, 6): None} == {**first.latencies, (4, 6): None}
    latency = found.latencies[4, 6]
    assert (latency.median_ms, latency.low_ms) == pytest.approx((9.2, 0.95 * 9.2))
    assert latency.high_ms > first.latencies[10,].median_ms
    assert LatencyCache(path, ROUNDS).get((4, 6)) == latency


def test_where_the_dense_network_is_out_of_its_quartiles_all_are_measured_anew(tmp_path: Path) -> None:
    path = tmp_path / "latencies.json"
    find_latencies([DENSE, (10,)], LatencyCache(path, ROUNDS), Device())
    device = Device(pace=0.8)
    found = find_latencies([DENSE, (10,), (5,)], LatencyCache(path, ROUNDS), device)
    assert device.timed == [DENSE, (5,), DENSE, (10,), (5,)]
    assert (found.n_known, found.pace) == (0, 0.8)
    assert found.latencies[10,].median_ms == 8
    assert LatencyCache(path, ROUNDS).get(DENSE) == found.latencies[DENSE]


def test_what_was_measured_at_an_earlier_pace_is_measured_again_when_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "latencies.json"
    find_latencies([DENSE, (10,), (20,)], LatencyCache(path, ROUNDS), Device())
    device = Device(pace=0.5)
    find_latencies([DENSE, (10,), (5,)], LatencyCache(path, ROUNDS), device)
    found = find_latencies([DENSE, (10,), (20,)], LatencyCache(path, ROUNDS), device)
    assert found.latencies[20,].median_ms == 10
    assert found.n_known == 2


def test_two_who_measure_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "latencies.json"
    first, second = (LatencyCache(path, ROUNDS) for _ in range(2))
    one, other = Latency(1.0, 1.0, 1.0), Latency(2.0, 2.0, 2.0)
    first.add({(1, 2): one})
    second.add({(3, 4): other})
    later = LatencyCache(path, ROUNDS)
    assert (later.get((1, 2)), later.get((3, 4))) == (one, other)
