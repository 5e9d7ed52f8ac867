"""The checked way of calling a method."""

from __future__ import annotations

import copy
import dataclasses
import errno
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dirprune.errors import ArchitectureError, ImportanceError
from dirprune.importance import (
    Scorer,
    ScoringContext,
    Selector,
    compute_scores,
    compute_selection,
    create,
    find_scores,
    keep_best,
    select_channels,
)
from dirprune.importance.base import NoOptions
from dirprune.importance.calling import put_dead_last
from dirprune.importance.magnitude import MagnitudeOptions
from dirprune.preemption import Preempted
from tests.importance.cases import linear_case


class Given(Scorer):
    """A scorer that does what the test says."""

    def __init__(self, score: Callable[[ScoringContext], dict[str, Tensor]]) -> None:
        super().__init__()
        self.given = score

    def score(self, context: ScoringContext) -> dict[str, Tensor]:
        return self.given(context)


class FirstOnes(Selector):
    """Keeps the first channels, and as many too many as told."""

    excess = 0

    def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> dict[str, list[int]]:
        return {name: list(range(n_kept + self.excess)) for name, n_kept in architecture.items()}


class Told(Selector):
    """Chooses what the test says."""

    def __init__(self, chosen: Any) -> None:
        super().__init__()
        self.chosen = chosen

    def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> Any:
        return self.chosen


def ones(context: ScoringContext) -> dict[str, Tensor]:
    return {name: torch.ones(n) for name, n in context.grouping.n_channels.items()}


def test_keep_best_returns_sorted_indices_and_prefers_the_lower_of_equals() -> None:
    scores = {"a": torch.tensor([1.0, 3.0, 3.0, 3.0, 2.0]), "b": torch.tensor([0.0, 1.0])}
    assert keep_best(scores, {"a": 2, "b": 1}) == {"a": [1, 2], "b": [1]}
    assert keep_best(scores, {"a": 4}) == {"a": [1, 2, 3, 4], "b": [0, 1]}


def test_scores_come_as_float64_copies() -> None:
    given = torch.tensor([1.0, 2.0, 3.0])
    scores = compute_scores(Given(lambda context: {"0": given}), linear_case([1, 1, 1]))
    assert scores["0"].dtype == torch.float64
    scores["0"][0] = 9
    assert given[0] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must score the groups 0, got none"),
        ({"0": torch.ones(3), "1": torch.ones(3)}, "must score the groups 0, got 0, 1"),
        ({0: torch.ones(3)}, "must score the groups 0, got keys of type int; try group.name as the key"),
        ({"0": torch.ones(3), object(): 1}, "got keys of type object; try group.name as the key"),
        ({"0": [10**400] * 3}, "must give '0' a tensor of numbers, got a list ("),
        ({"0": torch.ones(3, 1)}, "must give '0' scores of shape (3,), got (3, 1)"),
        (
            {"0": torch.tensor([0, float("nan"), 1])},
            "must give finite scores, got nan for channel 1 of '0' (1 in all)",
        ),
        (
            {"0": torch.tensor([0, 1, float("inf")])},
            "must give finite scores, got inf for channel 2 of '0' (1 in all); look for NaN in weights and "
            "calibration inputs, or at a division or logarithm of zero in the method",
        ),
        (None, "must return the scores of each group, got nothing; try return {group.name: tensor of"),
        (torch.ones(3), "must return the scores of each group, got a Tensor"),
        ({"0": None}, "must give '0' a tensor of numbers, got nothing (Could not infer dtype of NoneType)"),
        ({"0": "abc"}, "must give '0' a tensor of numbers, got a str"),
        ({"0": torch.ones(3) * 1j}, "must give '0' real scores, got torch.complex64; try .real or .abs()"),
    ],
)
def test_scores_that_break_the_contract_are_refused(given: Any, message: str) -> None:
    with pytest.raises(ImportanceError, match=re.escape(message)) as caught:
        compute_scores(Given(lambda context: given), linear_case([1, 1, 1]))
    assert "\n" not in str(caught.value)


def change_weight(context: ScoringContext) -> None:
    context.network[1].weight.data[0, 0] += 1  # type: ignore[index]


def leave_gradient(context: ScoringContext) -> None:
    for parameter in context.network.parameters():
        parameter.grad = torch.ones_like(parameter)


def leave_hook(context: ScoringContext) -> None:
    context.network.register_forward_pre_hook(lambda module, arguments: None)


def test_a_selector_that_returns_nothing_is_refused() -> None:
    with pytest.raises(ImportanceError, match="must return the kept indices of each group, got nothing"):
        compute_selection(Told(None), linear_case([1, 1, 1]), {"0": 2})


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"0": None},
            "must give '0' the indices of channels, got nothing ('NoneType' object is not iterable)",
        ),
        ({"0": ["a", "b"]}, "must give '0' the indices of channels, got a list ('str' object"),
        ({"0": [0.0, 2.0]}, "must give '0' the indices of channels, got a list ('float' object"),
        (
            {"0": torch.tensor([0.9, 1.7])},
            "must give '0' the indices of channels, got a Tensor (only integer",
        ),
        *(
            (
                {"0": mask},
                f"must give '0' the indices of channels, got a {type(mask).__name__} "
                "(expected whole numbers, got bools; try mask.nonzero().flatten())",
            )
            for mask in ([True, False, True], torch.tensor([True, False, True]))
        ),
        ({"0": np.array([True, False, True])}, "must give '0' the indices of channels, got a ndarray ("),
        ({"0": [0, 0, 1]}, "must keep 2 of 3 channels of '0', each once, got [0, 0, 1]"),
        ({"0": [1, 1]}, "must keep 2 of 3 channels of '0', each once, got [1, 1]"),
        (
            {0: [0, 1]},
            "must choose channels of the groups 0, got keys of type int; try group.name as the key",
        ),
        ({}, "must choose channels of the groups 0, got none"),
    ],
)
def test_a_selection_that_breaks_the_contract_is_refused(chosen: Any, message: str) -> None:
    with pytest.raises(ImportanceError, match=re.escape(message)) as caught:
        compute_selection(Told(chosen), linear_case([1, 1, 1]), {"0": 2})
    assert "\n" not in str(caught.value)


def test_a_method_of_ones_own_that_fails_is_named_with_the_place() -> None:
    class Failing(Selector):
        def select(self, context: ScoringContext, architecture: Mapping[str, int]) -> Any:
            return torch.ones(3) @ torch.ones(4)

    with pytest.raises(
        ImportanceError, match=r"^the importance method Failing fails at .*test_calling\.py:\d+: "
    ):
        compute_selection(Failing(), linear_case([1, 1, 1]), {"0": 2})
    lost = Given(lambda context: context.nothing_like_that)  # type: ignore[attr-defined]
    expected = (
        r"^the importance method Given fails at .*test_calling\.py:\d+: AttributeError: 'ScoringContext' obj"
    )
    with pytest.raises(ImportanceError, match=expected):
        compute_scores(lost, linear_case([1, 1, 1]))
    with pytest.raises(ImportanceError, match=r"Given fails at .*: SystemExit: 0$"):
        compute_scores(Given(lambda context: sys.exit(0)), linear_case([1, 1, 1]))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory"),
        Preempted(),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_what_is_no_fault_of_a_method_is_left_as_it_is(error: BaseException) -> None:
    def score(context: ScoringContext) -> dict[str, Tensor]:
        raise error

    with pytest.raises(type(error)) as caught:
        compute_scores(Given(score), linear_case([1, 1, 1]))
    assert caught.value is error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_weight, "got other values in '1.weight'"),
        (lambda context: context.network.train(), "got another mode of '' (False before, True after)"),
        (lambda context: context.network.requires_grad_(True), "got another requires_grad of '0.weight'"),
        (leave_gradient, "got another gradient of '0.weight' (None before, some after)"),
        (leave_hook, "got another number of hooks on '' (0 before, 1 after)"),
        (lambda context: context.network.register_buffer("b", torch.ones(1)), "got a tensor 'b' added"),
    ],
)
def test_method_that_changes_the_network_is_refused(
    change: Callable[[ScoringContext], object], message: str
) -> None:
    def score(context: ScoringContext) -> dict[str, Tensor]:
        change(context)
        return ones(context)

    context = linear_case([1, 1, 1])
    before = copy.deepcopy(context.network.state_dict())
    with pytest.raises(ImportanceError, match=re.escape(message)):
        compute_scores(Given(score), context)
    assert all(torch.equal(value, before[name]) for name, value in context.network.state_dict().items())


def test_method_gets_a_frozen_copy_in_evaluation_mode() -> None:
    context = linear_case([1, 1, 1])
    context.network.train()

    def score(lent: ScoringContext) -> dict[str, Tensor]:
        assert lent.network is not context.network
        assert not lent.network.training
        assert not any(parameter.requires_grad for parameter in lent.network.parameters())
        return ones(lent)

    compute_scores(Given(score), context)


def test_scoring_without_calibration_examples_is_refused() -> None:
    context = linear_case([1, 1, 1])
    empty = dataclasses.replace(context, calibration=context.calibration.subset(torch.arange(0)))
    with pytest.raises(ImportanceError, match="at least one calibration example, got none"):
        compute_scores(Given(ones), empty)


@pytest.mark.parametrize(
    ("scores", "dead", "expected"),
    [
        ([5.0, 2.0, 9.0], [0], [0.0, 2.0, 9.0]),  # zero is below every live score
        ([5.0, -2.0, 9.0], [0], [-13.0, -2.0, 9.0]),  # otherwise the lowest less the spread
        ([0.0, 0.0, 0.0], [1], [0.0, -1.0, 0.0]),
        ([1.0, 2.0, 9.0], [0], [1.0, 2.0, 9.0]),  # is lowest already
        ([3.0, 2.0], [0, 1], [3.0, 2.0]),  # nothing live to be below
        ([3.0, 2.0], [], [3.0, 2.0]),
    ],
)
def test_dead_channels_are_put_strictly_below_live_ones(
    scores: list[float], dead: list[int], expected: list[float]
) -> None:
    is_dead = torch.zeros(len(scores), dtype=torch.bool)
    is_dead[dead] = True
    assert put_dead_last(torch.tensor(scores), is_dead).tolist() == expected


def test_dead_channels_are_found_for_a_method_that_loves_them() -> None:
    context = linear_case([1, 0, 2])
    scores = compute_scores(Given(lambda lent: {"0": torch.tensor([1.0, 7.0, 2.0])}), context)
    assert scores["0"].tolist() == [1.0, 0.0, 2.0]


def test_selector_chooses_for_the_architecture() -> None:
    assert compute_selection(FirstOnes(), linear_case([1, 1, 1]), {"0": 2}) == {"0": [0, 1]}


def test_scorer_is_a_selector() -> None:
    scorer = Given(lambda context: {"0": torch.tensor([1.0, 3.0, 2.0])})
    assert compute_selection(scorer, linear_case([1, 1, 1]), {"0": 2}) == {"0": [1, 2]}
    assert scorer.select(linear_case([1, 1, 1]), {"0": 1}) == {"0": [1]}


@pytest.mark.parametrize("method", [FirstOnes(), create("magnitude")])
def test_an_architecture_that_does_not_fit_is_refused_and_groups_that_it_leaves_out_stay_whole(
    method: Selector,
) -> None:
    context = linear_case([1, 1, 1])
    assert compute_selection(method, context, {}) == {"0": [0, 1, 2]}
    for architecture, expected in (
        ({"0": 0}, "at least 1"),
        ({"0": 4}, "4"),
        ({"1": 2}, "unknown channel group"),
    ):
        for choose in (compute_selection, find_scores, select_channels):
            with pytest.raises(ArchitectureError, match=expected):
                choose(method, context, architecture)


def test_a_selector_without_an_architecture_is_refused() -> None:
    with pytest.raises(ImportanceError, match="chooses channels for an architecture, got none"):
        find_scores(FirstOnes(), linear_case([1, 1, 1]))


@pytest.mark.parametrize(
    "chosen", [torch.tensor([2, 0]), np.array([2, 0]), [torch.tensor(2), 0], range(0, 3, 2)], ids=repr
)
def test_indices_of_any_whole_kind_are_taken(chosen: Any) -> None:
    assert compute_selection(Told({"0": chosen}), linear_case([1, 1, 1]), {"0": 2}) == {"0": [0, 2]}


@pytest.mark.parametrize(("excess", "got"), [(1, "got [0, 1, 2]"), (-1, "got [0]"), (-2, "got []")])
def test_selection_of_the_wrong_size_is_refused(excess: int, got: str) -> None:
    selector = FirstOnes()
    selector.excess = excess
    with pytest.raises(
        ImportanceError, match=re.escape(f"must keep 2 of 3 channels of '0', each once, {got}")
    ):
        compute_selection(selector, linear_case([1, 1, 1]), {"0": 2})


def test_options_of_another_class_are_refused() -> None:
    assert FirstOnes().options == NoOptions()
    with pytest.raises(ImportanceError, match="must be a NoOptions, got MagnitudeOptions"):
        FirstOnes(MagnitudeOptions())
