"""A search on simulated workers: each trial takes as long as the images that it would see."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from search_grid import EPOCHS, N_TRAIN, N_VALIDATION
from search_table import Place, Table, measure

from dirprune.pareto import front_mask

FORWARD = 1 / 3
"""What it costs to judge an image, in trained ones: a forward pass, where training goes back twice as far."""
N_RECALIBRATION = 5_000
START = N_RECALIBRATION * FORWARD
"""Batch-norm recalibration of a trial that starts, in trained images."""
EVALUATION = N_VALIDATION * FORWARD
"""Each time that a trial is judged, likewise."""


@dataclass(frozen=True)
class Job:
    """A trial to start or to go on with.

    Attributes:
        number: The trial's number, from 0.
        place: Its architecture.
    """

    number: int
    place: Place


class Side(ABC):
    """A way of searching: it hands out trials and hears of them, in the order of the simulated clock.

    Attributes:
        rungs: Passes over the subset after which it is told of a trial and decides, increasing, below 3.
        preparation: What it costs before the first trial, in trained images; all workers wait for it.
    """

    rungs: tuple[int, ...] = ()
    preparation: float = 0.0

    @abstractmethod
    def next(self) -> Job | None:
        """Return a new trial or a paused one that goes on; None while there is none."""

    @abstractmethod
    def complete(self, job: Job, accuracy: float) -> None:
        """Take the validation accuracy of a trial at full resource."""

    def close(self) -> None:  # noqa: B027  # most sides hold nothing
        """Let go of what the side holds."""

    def report(self, job: Job, epochs: int, accuracy: float) -> bool:
        """Take the validation accuracy of a trial at a rung; return whether it goes on now."""
        return True


@dataclass
class Trace:
    """What a search found, by what it had cost.

    Attributes:
        points: A row whenever the front has changed: cost, images trained, the grid's hypervolume share of
            the front by the mean of the seeds, and by what the search itself saw.
        counts: Trials started, and ended at each number of passes.
        n_architectures: Different ones among the trials.
    """

    points: list[list[float]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    n_architectures: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "points": [
                [round(cost), trained, round(true, 6), round(seen, 6)]
                for cost, trained, true, seen in self.points
            ],
            "counts": dict(self.counts),
            "n_architectures": self.n_architectures,
        }


def simulate(
    side: Side, grid: Table, n_workers: int, budget: float, seed: int, judging: float = 1.0
) -> Trace:
    """Run a search until its budget is spent.

    Workers are all equally fast, and start what the side gives them as soon as they are free. The noise of a
    trial is the table's; an architecture that is proposed again costs again.

    Args:
        side: The search.
        grid: The table.
        n_workers: How many trials run at once.
        budget: What all workers together may spend, in trained images; judging and recalibration count too.
        seed: Of the noise.
        judging: What judging and recalibration cost, as a share of what they do beside these short trials: 0
            stands for trials so long that it does not matter.
    """
    stops = (*side.rungs, EPOCHS[-1])
    running: list[tuple[float, int, Job, int]] = []  # when, order, trial, number of its stop
    at: dict[int, int] = {}  # the next stop of a paused trial
    trace, finished, seen = Trace(), [], set()
    now, spent = side.preparation, n_workers * side.preparation
    trained = n_pieces = 0

    def start(job: Job, stop: int) -> None:
        nonlocal n_pieces
        epochs = stops[stop] - (stops[stop - 1] if stop else 0)
        cost = judging * (START * (stop == 0) + EVALUATION) + epochs * N_TRAIN
        heapq.heappush(running, (now + cost, n_pieces, job, stop))
        n_pieces += 1

    while True:
        while len(running) < n_workers and (job := side.next()) is not None:
            if job.number not in at:
                trace.counts["started"] += 1
                seen.add(job.place)
            start(job, at.pop(job.number, 0))
            at[job.number] = -1
        if not running:
            break
        when, _, job, stop = heapq.heappop(running)
        spent += (len(running) + 1) * (when - now)
        now = when
        if spent > budget:
            break
        trained += (stops[stop] - (stops[stop - 1] if stop else 0)) * N_TRAIN
        accuracy = grid.observe(job.place, stops[stop], np.random.default_rng([seed, job.number]))
        trace.counts[f"reached {stops[stop]}"] += 1
        if stop + 1 == len(stops):
            side.complete(job, accuracy)
            finished.append((job.place, grid.losses(job.place, accuracy)))
            _measure_(trace, grid, finished, spent, trained)
        elif side.report(job, stops[stop], accuracy):
            start(job, stop + 1)
        else:
            at[job.number] = stop + 1
    trace.n_architectures = len(seen)
    return trace


def _measure_(
    trace: Trace, grid: Table, finished: list[tuple[Place, list[float]]], spent: float, trained: int
) -> None:
    """Note what the front is worth that a search would return now, if it has changed."""
    is_front = front_mask(np.array([losses for _, losses in finished]))
    if trace.points and not is_front[-1]:
        return
    front = [finished[i] for i in np.flatnonzero(is_front)]
    true = grid.measure_true(place for place, _ in front) / grid.best
    trace.points.append([spent, trained, true, measure([losses for _, losses in front]) / grid.best])
