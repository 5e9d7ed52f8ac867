"""What `auto` picks, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dirprune.study.shapes import PER_GROUP, Shapes
from dirprune.study.space import SearchSpace
from dirprune.study.spec import StudySpec
from dirprune.tuning.samplers import AUTO

FEW_PARAMETERS = 10
FEW_TRIALS = 20
"""Before about so many there is little to learn from; the first ones of every sampler are random."""


def choose_sampler(choice: str, spec: StudySpec, shapes: Shapes) -> tuple[str, str]:
    """Return the name of a sampler for a study, and a line that says why.

    Args:
        choice: What the user says, one of `CHOICES`.
        spec: The study.
        shapes: How its architectures are drawn.
    """
    if choice != AUTO:
        return choice, f"sampler {choice}, as chosen"
    n_parameters = count_parameters(spec.space, shapes)
    where = f"{n_parameters} parameters and {spec.trials} trials"
    costs = [objective.metric for objective in spec.objectives if not objective.metric.startswith("val_")]
    if costs and spec.space.architectures == PER_GROUP:
        known = " and ".join(costs)
        return (
            "ehvi",
            f"sampler ehvi: {where}; it knows {known} before a trial, and found fronts soonest elsewhere",
        )
    if spec.trials <= FEW_TRIALS:
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
