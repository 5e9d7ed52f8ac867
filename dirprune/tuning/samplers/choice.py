"""What `auto` picks, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dirprune.study.shapes import PER_GROUP, Shapes
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tuning.samplers import AUTO, N_STARTUP

FEW_PARAMETERS = 10
FEW_TRIALS = 20
"""Before about so many there is little to learn from; the first ones of every sampler are random."""


@dataclass(frozen=True)
class Budget:
    """What a study may spend.

    Attributes:
        trials: Its trials.
        n_given: How many of them are architectures that no sampler chooses: the dense one, warm starts,
            uniform and reference ones.
        images: Training images of a trial at full resource.
        time_limit_s: Seconds after which it ends; None if nothing but the trials ends it.
    """

    trials: int
    n_given: int
    images: int
    time_limit_s: float | None = None

    @property
    def n_chosen(self) -> int:
        """Trials that the sampler chooses."""
        return max(0, self.trials - self.n_given)

    def describe(self) -> str:
        """Return what it comes to: trials, and the images that they train on if none is stopped."""
        ends = "" if self.time_limit_s is None else f" or {self.time_limit_s:,.0f} s"
        return f"{self.trials} trials of {self.images:,} images{ends}"


def choose_sampler(choice: str, spec: StudySpec, shapes: Shapes, budget: Budget) -> tuple[str, str]:
    """Return the name of a sampler for a study, and a line that says why.

    A budget that ends before any sampler has learnt gets random draws. Above that it decides only where no
    cost is known before a trial: elsewhere `ehvi` missed least of the front on both tables of
    `benchmarks/search.py`.

    Args:
        choice: What the user says, one of `CHOICES`.
        spec: The study.
        shapes: How its architectures are drawn.
        budget: What the study may spend.
    """
    none_left = "all of which a study begins with; none is left to choose"
    if spec.halving != "none":
        none_left += ", and only what a sampler chooses is halted at rungs"
    if choice != AUTO and budget.n_chosen == 0:
        return choice, f"sampler {choice}, as chosen: {budget.describe()}, {none_left}"
    if choice != AUTO:
        return choice, f"sampler {choice}, as chosen"
    n_parameters = count_parameters(spec.space, shapes)
    where = f"{n_parameters} parameters and {budget.describe()}"
    if budget.n_chosen == 0:
        return "random", f"sampler random: {where}, {none_left}"
    if budget.trials <= N_STARTUP:
        return "random", f"sampler random: {where} end before another one has learnt anything"
    costs = [objective.metric for objective in spec.objectives if not objective.metric.startswith("val_")]
    if costs and spec.space.architectures == PER_GROUP:
        known = " and ".join(costs)
        return (
            "ehvi",
            f"sampler ehvi: {where}; it knows {known} before a trial, and found fronts soonest elsewhere",
        )
    if budget.trials <= FEW_TRIALS:
        return "tpe", f"sampler tpe: {where} are too few to tell samplers apart"
    if n_parameters <= FEW_PARAMETERS or spec.space.architectures == PER_GROUP:
        return "front", f"sampler front: {where}; in such spaces it found more than tpe"
    return "tpe", f"sampler tpe: {where}; with a cost target and many offsets it found more than front"


def count_parameters(space: SearchSpace, shapes: Shapes) -> int:
    """Return how many parameters with more than one value a trial of the first method has."""
    trial = _CountingTrial()
    space.suggest(trial, shapes, number=0, source="sampler")
    return trial.n_parameters


class _CountingTrial:
    """Count what is asked for and answer with the lowest or first value."""

    def __init__(self) -> None:
        self.n_parameters = 0

    def suggest_int(self, name: str, low: int, high: int) -> int:
        self.n_parameters += low < high
        return low

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.n_parameters += low < high
        return low

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        self.n_parameters += len(choices) > 1
        return choices[0]
