"""What a coalition is worth: checks of what is asked, and masking against losses worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext
from dirprune.importance.coalitions import Coalitions, CoalitionValues
from dirprune.importance.coalitions.judge import Judge, are_classes
from dirprune.importance.coalitions.masked import MaskedValues
from dirprune.surgery import compact
from dirprune.tasks import make_task
from tests.importance.cases import evidence_case, linear_case, make_context
from tests.networks_for_tests import Residual, SmallLeNet


class Counts(CoalitionValues):
    """Each coalition is worth the number of its channels, the whole group of three NaN."""

    group, n_channels = "conv", 3

    def _compute(self, coalitions: Coalitions) -> NDArray[np.float64]:
        sizes = coalitions.sum(1).astype(np.float64)
        return np.where(sizes == 3, np.nan, sizes)


@pytest.mark.parametrize(
    "coalitions",
    [
        np.ones((2, 3)),
        np.ones((2, 3), dtype=np.int64),
        np.ones((2, 4), dtype=bool),
        np.ones(3, dtype=bool),
        np.ones((1, 2, 3), dtype=bool),
    ],
)
def test_coalitions_of_another_shape_or_type_are_refused(coalitions: Coalitions) -> None:
    with pytest.raises(ImportanceError, match=r"must be bool of shape \(n_coalitions, 3\), got \w+ of shape"):
        Counts().evaluate(coalitions)


def test_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ImportanceError, match=r"must be finite, got nan with 3 of 3 channels; look for NaN"):
        Counts().evaluate(np.array([[True, False, True], [True, True, True]]))


def test_no_coalition_has_no_value_and_views_are_taken() -> None:
    assert Counts().evaluate(np.empty((0, 3), dtype=bool)).shape == (0,)
    assert Counts().evaluate(np.eye(6, dtype=bool)[::2, ::2]).tolist() == [1, 1, 1]


def test_masking_gives_minus_the_loss_without_the_absent_channels() -> None:
    # The targets are the whole network's outputs: what is missing is the sum of weight * input.
    context = linear_case([2, -1, 0.5])
    x = context.calibration.inputs.double()
    coalitions = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0], [0, 0, 0]], dtype=bool)
    missing = [0 * x[:, 0], 2 * x[:, 0], -x[:, 1] + 0.5 * x[:, 2], 2 * x[:, 0] - x[:, 1] + 0.5 * x[:, 2]]
    expected = [-float(part.square().mean()) for part in missing]
    assert MaskedValues(context, "0").evaluate(coalitions).tolist() == pytest.approx(expected, rel=1e-5)


def test_masking_gives_the_share_of_right_classes() -> None:
    context = evidence_case([3, -1, -1])
    values = MaskedValues(context, "0", judge=Judge(context.task, "accuracy"))
    found = values.evaluate(np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0]], dtype=bool))
    assert found.tolist() == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_batch_size_of_masking_does_not_matter(batch_size: int) -> None:
    context, coalitions = make_context(n_examples=20), np.eye(6, dtype=bool)
    expected = MaskedValues(context, "conv2").evaluate(coalitions)
    found = MaskedValues(context, "conv2", batch_size=batch_size).evaluate(coalitions)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@torch.no_grad()
def measure_compact(context: ScoringContext, kept: dict[str, list[int]]) -> float:
    split = context.calibration
    smaller = compact(context.network, context.grouping, kept, split.inputs[:2]).eval()
    return -float(context.task.summed_loss(smaller(split.inputs), split.targets)) / len(split)


@pytest.mark.parametrize(
    ("kind", "group", "others"),
    [
        (SmallLeNet, "conv1", {}),
        (SmallLeNet, "conv2", {"conv1": [0, 2], "linear1": [1, 2, 5]}),
        (
            SmallLeNet,
            "linear1",
            {"conv2": [3], "linear1": [0]},
        ),  # what is said of the group itself is not meant
        (Residual, "stem", {"conv_a1": [0, 4]}),
        (Residual, "conv_b1", {"stem": [1, 2, 3]}),
    ],
)
def test_masking_is_worth_what_the_smaller_network_is(
    kind: type[nn.Module], group: str, others: dict[str, list[int]]
) -> None:
    context = make_context(kind)
    rng = np.random.default_rng(0)
    coalitions = rng.random((5, context.grouping[group].n_channels)) < 0.6
    coalitions[:, 0] = True  # surgery keeps at least one channel
    found = MaskedValues(context, group, others).evaluate(coalitions)
    kept = [{**others, group: np.flatnonzero(row).tolist()} for row in coalitions]
    expected = [measure_compact(context, channels) for channels in kept]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_accuracy_needs_classes_and_value_must_be_known() -> None:
    with pytest.raises(ImportanceError, match="value 'accuracy' needs a task that is evaluated by accuracy"):
        Judge(linear_case([1]).task, "accuracy")
    with pytest.raises(ImportanceError, match=r"must be 'loss' or 'accuracy', got 'acuracy'; did you mean"):
        Judge(make_context().task, "acuracy")


def test_masking_leaves_the_network_as_it_is() -> None:
    context = make_context()
    before = {name: value.clone() for name, value in context.network.state_dict().items()}
    MaskedValues(dataclasses.replace(context), "conv1").evaluate(np.zeros((1, 4), dtype=bool))
    after = context.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not any(module._forward_pre_hooks for module in context.network.modules())


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_losses_are_the_cross_entropy_of_torch_also_of_large_outputs(scale: float) -> None:
    rng = torch.Generator().manual_seed(0)
    outputs = scale * torch.randn(5, 40, 7, generator=rng)
    targets = torch.randint(7, (40,), generator=rng)
    targets_with_ignored = targets.clone()
    targets_with_ignored[:3] = -100  # which torch counts as no loss
    for expected_targets in (targets, targets_with_ignored):
        expected = [
            -torch.nn.functional.cross_entropy(part, expected_targets, reduction="sum") for part in outputs
        ]
        is_plain = are_classes(expected_targets)
        found = Judge(make_task(), "loss").sum_up_(outputs.clone(), expected_targets, is_plain)
        torch.testing.assert_close(found, torch.stack(expected).double(), rtol=1e-6, atol=1e-5)
