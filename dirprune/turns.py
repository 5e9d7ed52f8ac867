"""Several networks timed in turns, so that whatever the device does meanwhile meets all of them alike."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from dirprune.latency import (
    N_TRIES,
    WARM_UP_S,
    Latency,
    busy_device,
    summarise_passes,
    time_pass,
    warm_up,
)
from dirprune.layers import modes_restored

N_ROUNDS = 10
TURN_WARM_UP_S = WARM_UP_S / N_ROUNDS
"""How long a GPU computes before a turn that follows another one at once: its clocks are up already."""
N_WARM_UP = 3
"""Passes before a network's first turn; before a later one there is one, which brings its weights near."""

Progress = Callable[[int, int], None]


def count_rounds(n_runs: int) -> int:
    """Return in how many rounds so many passes of each network are timed: at least one pass in each."""
    return min(N_ROUNDS, n_runs)


@torch.no_grad()
def measure_in_turns(
    networks: Sequence[nn.Module],
    inputs: Tensor,
    n_runs: int = 50,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Time passes of networks in evaluation mode, a few of each in every round.

    Were one network timed after the other, a clock that falls or a neighbour who comes in between would make
    two equal ones differ, by more than the passes of either. In rounds both meet all of the networks. Every
    other round goes from the last network to the first, so that a steady drift favours none.

    The quartiles are those of all passes of all rounds: what differs between rounds is in them beside what
    differs between passes. Quartiles of the ten rounds' medians would be narrower and rest on ten numbers.
    At worst, where turns vary at random and passes within a turn hardly do, those of two equal networks are
    still apart in one of fifty measurements; with five rounds it would be one of five.

    A GPU holds one network at a time: each is moved there for its turn and back to the CPU's memory, which
    holds all of them, and is warmed up after the move.

    While the passes of any network differ too much, further rounds are timed and the earliest ones forgotten,
    up to `N_TRIES` times as many as were wanted.

    Args:
        networks: At least one, on the CPU; left there.
        inputs: One batch, shape (batch, ...), on the device that counts.
        n_runs: Passes of each network that count; >= 2.
        progress: Told how many turns are over, and of how many; of more where further rounds are needed.
        clock: Returns seconds.
    Returns:
        What each network takes, in their order.
    Raises:
        ConfigurationError: If the device is never quiet enough.
    """
    n_rounds, n_networks = count_rounds(n_runs), len(networks)
    rounds: deque[list[list[float]]] = deque(maxlen=n_rounds)  # passes of each network, in ms
    for number in range(N_TRIES * n_rounds):
        n_passes = len(range(number % n_rounds, n_runs, n_rounds))  # n_runs in any n_rounds that follow
        order = range(n_networks) if number % 2 == 0 else range(n_networks)[::-1]
        taken: list[list[float]] = [[] for _ in networks]
        for place, index in enumerate(order, 1):
            n_warm_up = N_WARM_UP if number == 0 else 1
            least_s = WARM_UP_S if number == 0 and place == 1 else TURN_WARM_UP_S
            taken[index] = _take_turn(networks[index], inputs, n_passes, n_warm_up, least_s, clock)
            if progress is not None:
                progress(number * n_networks + place, max(n_rounds, number + 1) * n_networks)
        rounds.append(taken)
        if len(rounds) == n_rounds:
            latencies = [summarise_passes(list(chain(*turns))) for turns in zip(*rounds, strict=True)]
            widest = max(latencies, key=lambda latency: latency.spread)
            if widest.is_steady:
                return latencies
    raise busy_device(widest, inputs)


def _take_turn(
    network: nn.Module,
    inputs: Tensor,
    n_passes: int,
    n_warm_up: int,
    least_s: float,
    clock: Callable[[], float],
) -> list[float]:
    """Return how long some passes of a network take, in ms.

    Args:
        network: On the CPU, and left there.
        inputs: One batch, on the device.
        n_passes: Passes that count.
        n_warm_up: Passes before them.
        least_s: How long these go on where the device is a GPU.
        clock: Returns seconds.
    """
    run = partial(time_pass, network, inputs, clock)
    network.to(inputs.device)
    try:
        with modes_restored(network):
            network.eval()
            warm_up(run, n_warm_up, least_s if inputs.is_cuda else 0.0)
            return [run() for _ in range(n_passes)]
    finally:
        network.to("cpu")
