"""Greedy selection: group by group, with exchanges and sweeps."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dirprune.errors import ImportanceError
from dirprune.importance import create
from dirprune.importance.calling import compute_selection
from dirprune.importance.coalitions import open_values
from dirprune.importance.greedy import selector
from dirprune.importance.greedy.images import with_examples
from tests.importance.cases import evidence_case, linear_case, make_split
from tests.importance.greedy.networks import two_sides


@pytest.mark.parametrize(
    "options", [{}, {"lazy": False}, {"swaps": 0}, {"sweeps": 0}, {"step": 0.5}, {"search": "curvature"}]
)
def test_largest_weights_are_kept_where_channels_add_up(options: dict[str, Any]) -> None:
    context = two_sides([3, -1, 2], [0.5, 4])
    kept = compute_selection(create("greedy", options), context, {"left": 2, "right": 1})
    assert kept == {"left": [0, 2], "right": [1]}


def test_group_that_keeps_all_is_left_alone() -> None:
    context = two_sides([3, -1], [0.5, 4])
    assert compute_selection(create("greedy"), context, {"left": 2, "right": 1}) == {
        "left": [0, 1],
        "right": [1],
    }


def test_channels_that_speak_most_for_the_right_class_are_kept_by_accuracy() -> None:
    context = evidence_case([-3.0, 1.0, 1.5, -2.0])
    kept = compute_selection(create("greedy", {"value": "accuracy"}), context, {"0": 2})
    assert kept == {"0": [1, 2]}


def test_only_the_beginning_of_calibration_is_read() -> None:
    context = linear_case([1.0, 2.0, 3.0], n_examples=8)
    spoilt = context.calibration.inputs.clone()
    spoilt[5:] = float("nan")
    context = dataclasses.replace(
        context, calibration=dataclasses.replace(context.calibration, inputs=spoilt)
    )
    assert len(with_examples(context, 5).calibration) == 5
    compute_selection(create("greedy", {"n_examples": 5}), context, {"0": 1})
    with pytest.raises(ImportanceError, match="must be finite"):
        compute_selection(create("greedy", {"n_examples": 6}), context, {"0": 1})


def test_sweep_takes_back_what_later_cuts_made_wrong() -> None:
    # Left channel 0 and right channel 0 cancel. The right loses its channel 0 anyway: seen from the left,
    # channel 0 is then harmful, which only a second look at the left can know.
    context = two_sides([4.0, 1.0], [4.0, 9.0])
    inputs = context.calibration.inputs.clone()
    inputs[:, 2] = -inputs[:, 0]  # right channel 0 sees minus what left channel 0 sees
    targets = context.network(inputs).detach()
    context = dataclasses.replace(context, calibration=make_split(inputs, targets))
    architecture = {"left": 1, "right": 1}
    once = compute_selection(create("greedy", {"sweeps": 0}), context, architecture)
    again = compute_selection(create("greedy", {"sweeps": 1}), context, architecture)
    assert once == {"left": [0], "right": [1]}
    assert again == {"left": [1], "right": [1]}


def test_channels_are_judged_with_the_statistics_that_they_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def record(*arguments: Any, is_recalibrated: bool, **options: Any) -> Any:
        asked.append(is_recalibrated)
        return open_values(*arguments, is_recalibrated=is_recalibrated, **options)

    monkeypatch.setattr(selector, "open_values", record)
    for is_recalibrated in (True, False):
        method = create("greedy", {"recalibrate": is_recalibrated, "sweeps": 0})
        compute_selection(method, two_sides([3, -1], [0.5, 4]), {"left": 1, "right": 2})
    assert asked == [True, False]


def test_progress_reaches_its_end() -> None:
    told: list[tuple[str, int, int]] = []
    context = dataclasses.replace(
        two_sides([3, -1], [0.5, 4]), progress=lambda what, done, total: told.append((what, done, total))
    )
    compute_selection(create("greedy", {"sweeps": 0}), context, {"left": 1, "right": 1})
    assert [report for report in told if report[0] == "greedy"] == [("greedy", 1, 2), ("greedy", 2, 2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": "los"}, "value must be 'loss' or 'accuracy', got 'los'"),
        ({"n_examples": 0}, "n_examples must be at least 1, got 0"),
        ({"search": "fast"}, "search must be 'auto', 'exact' or 'curvature', got 'fast'"),
        ({"search": "curvature", "value": "accuracy"}, "search 'curvature' needs value 'loss'"),
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"swaps": -1}, "swaps must be at least 0, got -1"),
        ({"sweeps": -1}, "sweeps must be at least 0, got -1"),
        ({"step": 0}, r"step must be in \(0, 1\], got 0; 2% is 0.02"),
        ({"step": 1.5}, r"step must be in \(0, 1\], got 1.5"),
    ],
)
def test_bad_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ImportanceError, match=message):
        create("greedy", options)
