"""Objectives: what is accepted, and what a mistake is told."""

from __future__ import annotations

import pytest

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective, read_objectives


def test_text_and_objective_are_inverse() -> None:
    objective = Objective.parse("val_accuracy:maximize")
    assert objective == Objective("val_accuracy", "maximize")
    assert str(objective) == "val_accuracy:maximize"
    assert objective.is_maximized
    assert not Objective.parse("macs:minimize").is_maximized


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val_accuracy", "expected metric:direction, got 'val_accuracy'; try 'val_accuracy:maximize'"),
        ("val_accuracy:max", "unknown direction 'max' of objective val_accuracy; did you mean 'maximize'"),
        ("val_accuracy:", "unknown direction '' of objective val_accuracy; known: maximize, minimize"),
        (":maximize", "must begin with a letter"),
        ("val accuracy:maximize", "must begin with a letter"),
        ("test_accuracy:maximize", "the test split, which decides nothing; try val_accuracy"),
    ],
)
def test_mistake_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        Objective.parse(text)
    assert "\n" not in str(raised.value)


def test_a_studys_latency_is_known_as_well_as_its_model_is() -> None:
    objectives = [["val_accuracy", "maximize"], ["latency_ms", "minimize"]]
    described = {"objectives": objectives, "latency": {"error": 0.07}}
    assert [objective.margin for objective in read_objectives(described)] == [0.0, 0.07]
    assert read_objectives({"objectives": objectives}) == tuple(Objective(*pair) for pair in objectives)
