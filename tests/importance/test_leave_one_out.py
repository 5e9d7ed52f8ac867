"""Leave-one-out scores against losses worked out by hand and against networks that are really smaller."""

from __future__ import annotations

import pytest
import torch

from dirprune.errors import ImportanceError
from dirprune.importance import ScoringContext, create
from dirprune.surgery import compact
from tests.importance.cases import evidence_case, linear_case, make_context, score
from tests.networks_for_tests import Residual


def test_score_is_the_increase_of_the_loss() -> None:
    # The targets are the outputs, so the loss is 0; without channel c it is the mean of (weight * input)^2.
    context = linear_case([2, -1, 0.5])
    inputs = context.calibration.inputs.double()
    expected = torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64) * inputs.square().mean(0)
    torch.testing.assert_close(score("leave-one-out", context)["0"], expected, rtol=1e-5, atol=0)


def test_accuracy_is_lost_where_the_channel_decides() -> None:
    # Channel 0 alone outvotes the other two, which speak for the wrong class.
    scores = score("leave-one-out", evidence_case([3, -1, -1]), {"value": "accuracy"})
    assert scores["0"].tolist() == [1.0, 0.0, 0.0]


def test_channel_that_harms_has_a_negative_score() -> None:
    scores = score("leave-one-out", evidence_case([3, -1, 1]))["0"]
    assert scores[1] < 0 < scores[2] < scores[0]


@torch.no_grad()
def compute_loss(context: ScoringContext, network: torch.nn.Module) -> float:
    split = context.calibration
    return float(context.task.summed_loss(network(split.inputs), split.targets)) / len(split)


def test_coupled_channels_are_left_out_of_all_their_layers() -> None:
    context = make_context(Residual)
    scores = score("leave-one-out", context)["stem"]
    before = compute_loss(context, context.network)
    for channel in range(6):
        kept = {"stem": [other for other in range(6) if other != channel]}
        smaller = compact(context.network, context.grouping, kept, context.calibration.inputs[:2]).eval()
        assert float(scores[channel]) == pytest.approx(compute_loss(context, smaller) - before, abs=1e-5)


def test_value_must_be_known() -> None:
    with pytest.raises(ImportanceError, match=r"value must be 'loss' or 'accuracy', got 'los'; did you mean"):
        create("leave-one-out", {"value": "los"})


def test_accuracy_of_a_task_without_classes_is_refused() -> None:
    with pytest.raises(ImportanceError, match="value 'accuracy' needs a task"):
        score("leave-one-out", linear_case([1, 2]), {"value": "accuracy"})
