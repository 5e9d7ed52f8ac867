"""Networks that are timed in turns: what drifts meanwhile is told from what differs between them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dirprune.errors import ConfigurationError
from dirprune.latency import MAX_SPREAD, Latency
from dirprune.records.latency import Timed, find_beaten
from dirprune.study.objectives import Objective
from dirprune.turns import N_ROUNDS, measure_in_turns

DRIFT = 0.15
BATCH = torch.zeros(1)


class Clock:
    """A clock that only passes of `Timeable` move on, on a device that gets slower all the time."""

    def __init__(self, drift_per_s: float = 0.0) -> None:
        self.now_s, self.drift_per_s = 0.0, drift_per_s
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now_s

    def spend(self, name: str, seconds: float) -> None:
        """Let a pass take so long, were the device as fast as in the beginning."""
        self.order.append(name)
        self.now_s += seconds * (1 + self.drift_per_s * self.now_s)


class Timeable(nn.Module):
    """Takes a number of milliseconds by a clock."""

    def __init__(self, clock: Clock, name: str, ms: float) -> None:
        super().__init__()
        self.clock, self.name, self.ms = clock, name, ms

    def forward(self, inputs: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.clock.spend(self.name, self.ms / 1000)
        return inputs


def judge(latencies: list[Latency]) -> dict[int, int]:
    """Return which of networks of one accuracy are beaten, counted from 0."""
    networks = [Timed(trial, {"val_accuracy": 0.9}, latency) for trial, latency in enumerate(latencies)]
    return find_beaten(networks, [Objective("val_accuracy", "maximize")])


@pytest.mark.parametrize("n_runs", [50, 20, 12])
def test_of_equal_networks_on_a_device_that_drifts_none_is_beaten(n_runs: int) -> None:
    clock = Clock(DRIFT / (2 * 0.01 * n_runs))
    latencies = measure_in_turns([Timeable(clock, name, 10) for name in "ab"], BATCH, n_runs, clock=clock)
    first, second = latencies
    assert clock.now_s * clock.drift_per_s > DRIFT
    assert first.low_ms < second.median_ms < first.high_ms
    assert second.low_ms < first.median_ms < second.high_ms
    assert first.median_ms == pytest.approx(second.median_ms, rel=DRIFT / 10)
    assert first.spread > DRIFT / 3, "the drift is in what the quartiles say"
    assert judge(latencies) == {}


def test_a_slower_network_is_beaten_on_a_device_that_drifts_too() -> None:
    clock = Clock(DRIFT / 1.2)
    latencies = measure_in_turns([Timeable(clock, "a", 14), Timeable(clock, "b", 10)], BATCH, clock=clock)
    assert judge(latencies) == {0: 1}
    assert latencies[0].median_ms / latencies[1].median_ms == pytest.approx(1.4, rel=0.02)


def test_each_round_times_all_networks_and_every_other_one_backwards() -> None:
    clock = Clock()
    told = []
    networks = [Timeable(clock, name, 10).train() for name in "abc"]
    latencies = measure_in_turns(networks, BATCH, 23, lambda *report: told.append(report), clock)
    turns = [name for name, before in zip(clock.order, ["", *clock.order], strict=False) if name != before]
    assert "".join(turns) == "abcbabcbabcbabcbabcba", "the last of a round is the first of the next"
    assert [clock.order.count(name) for name in "abc"] == [3 + N_ROUNDS - 1 + 23] * 3
    assert told == [(turn, 3 * N_ROUNDS) for turn in range(1, 3 * N_ROUNDS + 1)]
    assert [latency.median_ms for latency in latencies] == pytest.approx([10, 10, 10])
    assert all(network.training for network in networks)


def test_fewer_passes_than_rounds_are_one_in_each() -> None:
    clock = Clock()
    measure_in_turns([Timeable(clock, "a", 10)], BATCH, 4, clock=clock)
    assert len(clock.order) == 3 + 4 + 3


class Unsteady(Timeable):
    """Takes five times as long in every other turn of its first passes."""

    def __init__(self, clock: Clock, n_unsteady: int) -> None:
        super().__init__(clock, "u", 10)
        self.n_passes, self.n_unsteady = 0, n_unsteady

    def forward(self, inputs: Tensor) -> Tensor:
        self.n_passes += 1
        self.ms = 50 if self.n_passes // 6 % 2 and self.n_passes <= self.n_unsteady else 10
        return super().forward(inputs)


def test_rounds_go_on_until_the_device_is_quiet_and_the_busy_ones_are_forgotten() -> None:
    clock = Clock()
    told = []
    networks = [Unsteady(clock, 120), Timeable(clock, "b", 20)]
    unsteady, steady = measure_in_turns(
        networks, BATCH, progress=lambda *report: told.append(report), clock=clock
    )
    assert (unsteady.median_ms, steady.median_ms) == (pytest.approx(10), pytest.approx(20))
    assert unsteady.spread <= MAX_SPREAD
    n_turns = told[-1][1]
    assert 2 * N_ROUNDS < n_turns < 5 * 2 * N_ROUNDS
    assert told[-1] == (n_turns, n_turns)


def test_a_device_that_is_never_quiet_is_refused() -> None:
    clock = Clock()
    networks = [Timeable(clock, "a", 10), Unsteady(clock, 10**6)]
    with pytest.raises(
        ConfigurationError, match=r"quiet device, got passes of 10 to 50 ms \(quartiles\) on cpu"
    ):
        measure_in_turns(networks, BATCH, clock=clock)
