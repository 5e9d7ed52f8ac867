"""A reference point that nothing can dominate."""

from __future__ import annotations

import pytest

from dirprune.errors import ConfigurationError
from dirprune.study.objectives import Objective
from dirprune.study.reference import check_reference, compare_reference

ACCURACY, MACS = Objective("val_accuracy", "maximize"), Objective("macs", "minimize")
HIGHEST, LOWEST = {"macs": 498_750.0}, {"macs": 11_240.0}


def check(*objectives: Objective, **reference: float) -> None:
    check_reference(objectives, reference, HIGHEST, LOWEST)


def test_values_that_some_network_is_better_than_are_accepted():
    check(ACCURACY, MACS, val_accuracy=0.999, macs=11_241.0)
    check(Objective("val_mae", "minimize"), val_mae=0.0)  # how good it can get is not known


@pytest.mark.parametrize(
    ("objective", "value", "message"),
    [
        (MACS, 11_240.0, r"macs must be above 11,240, which the smallest network .* got 11,240;"),
        (Objective("macs", "maximize"), 498_750.0, "macs must be below 498,750, which the dense network has"),
        (ACCURACY, 1.0, "val_accuracy must be below 1, which the best possible network has, got 1;"),
    ],
)
def test_value_that_nothing_is_better_than_is_named(objective, value, message):
    with pytest.raises(ConfigurationError, match=message):
        check(objective, **{objective.metric: value})


def test_dense_network_that_is_no_better_is_said():
    reference = {"val_accuracy": 0.97, "macs": 498_750.0}
    said = compare_reference([ACCURACY, MACS], reference, {"val_accuracy": 0.96})
    assert "val_accuracy of 0.9600 is no better than the reference value 0.97" in said
    assert not compare_reference([ACCURACY, MACS], reference, {"val_accuracy": 0.98})
